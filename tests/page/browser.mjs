// Asks the demonstration's questions in a real browser, against a `tandem serve` of the
// demonstration's bundle. CONTRIBUTING.md says how it is run.
//
//   PLAYWRIGHT=FOLDER/node_modules/playwright-core/index.mjs \
//     node tests/page/browser.mjs http://127.0.0.1:8000/ [FOLDER FOR SCREENSHOTS]
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [address, shots] = process.argv.slice(2);
const { chromium } = await import(process.env.PLAYWRIGHT ?? "playwright-core");
const demo = new URL("../../deploy/demo/", import.meta.url);
const image = fileURLToPath(new URL("picture.png", demo));
const questions = JSON.parse(readFileSync(new URL("questions.json", demo), "utf8"));
const root = fileURLToPath(new URL("../../", import.meta.url));
const VIDEO = Buffer.from(execFileSync(process.env.PYTHON ?? ".venv/bin/python", ["-c", [
  "import base64; from tests.support.videos import moving, video_file",
  "print(base64.b64encode(video_file(moving(24, 160, 96), rate=8, container='webm', codec='libvpx')).decode())",
].join("\n")], { cwd: root, encoding: "utf8" }), "base64");  // three seconds
const HOSTILE = [
  "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>",
  "[click](javascript:window.hurt=1) ![x](https://evil.example/x.png)",
  "**<b onclick=alert(1)>bold</b>** `</code><script>window.hurt=1</script>`",
  "```html\n</code></pre><iframe src=//evil.example></iframe>\n```",
  "- <svg onload=window.hurt=1>\n- " + "[".repeat(5000) + "*".repeat(5000),
  '[{"bbox_2d": [100, 200, 600, 700], "label": "<img src=x onerror=window.hurt=1>"},',
  ' {"point_2d": [800, 300], "label": "a point"}]',
].join("\n\n");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
const page = await context.newPage();
page.setDefaultTimeout(60_000);
const elsewhere = [];
const complaints = [];
page.on("request", (request) => {
  if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(address)) elsewhere.push(request.url());
});
page.on("console", (message) => {
  if (message.type() === "error") complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));

const shot = async (name) => shots && page.screenshot({ path: `${shots}/${name}.png` });
const lastAnswer = () => page.locator(".answer").last();
const ended = () => page.waitForFunction(
  () => [...document.querySelectorAll(".answer")].at(-1)?.getAttribute("aria-busy") === "false"
    && document.querySelector("#stop").hidden,
);

async function ask(text) {
  await page.fill("#question", text);
  await page.press("#question", "Enter");
  await ended();
  assert.equal(await lastAnswer().locator(".note").count(), 0, await lastAnswer().innerText());
  return (await lastAnswer().locator(".text").innerText()).trim();
}

/** Lets files fall on the page, as a desktop does. */
async function drop(path, type) {
  const data = await page.evaluateHandle(([bytes, kind]) => {
    const transfer = new DataTransfer();
    const raw = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([raw], "dropped.png", { type: kind }));
    return transfer;
  }, [readFileSync(path).toString("base64"), type]);
  await page.dispatchEvent("body", "drop", { dataTransfer: data });
  await page.waitForSelector("#attached li");
}

/** Answers the next question with a text of ours, in pieces, after `pause` milliseconds. */
async function answerWith(text, { thought = "", pause = 0 } = {}) {
  const event = (delta, rest = {}) => `data: ${JSON.stringify({ choices: [{ delta, ...rest }] })}\n\n`;
  const pieces = text.match(/[^]{1,50}/g).map((content) => event({ content }));
  const usage = { prompt_tokens: 90, completion_tokens: 40, prompt_tokens_details: { cached_tokens: 64, image_tokens: 64 } };
  const body = [
    ...(thought ? [event({ reasoning: thought })] : []), ...pieces, event({}, { finish_reason: "stop" }),
    `data: ${JSON.stringify({ choices: [], usage })}\n\n`, "data: [DONE]\n\n",
  ].join("");
  await page.route("**/v1/chat/completions", async (route) => {
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    await route.fulfill({ contentType: "text/event-stream; charset=utf-8", body }).catch(() => {});
  }, { times: 1 });
}

for (;;) {
  const report = await fetch(new URL("health", address)).then((answer) => answer.json(), () => ({}));
  if (report.status === "ok") break;
  await new Promise((resolve) => { setTimeout(resolve, 100); });
}
await page.goto(address);
await page.waitForFunction(() => document.querySelector("#model").textContent !== "");
await page.click("#open-settings");
await page.fill("#set-temperature", "0");
await shot("settings");
await page.click("#close-settings");

for (const [index, { question, answer }] of questions.entries()) {
  if (index === 0) await drop(image, "image/png");
  else {
    await page.click("#new-chat");
    await page.setInputFiles("#files", image);
    await page.waitForSelector("#attached li");
  }
  assert.equal(await ask(question), answer);
  if (index === 0) console.log(`first right answer ${new Date().toISOString()}`);
}
await lastAnswer().locator(".stages summary").click();
await shot("answer");

// A box of the model's own; the demonstration knows them for a single thing in an image.
const boxes = await ask("Where is the circle?");
assert.match(boxes, /bbox_2d/);
await page.waitForSelector(".places .box");
await shot("box");

// Again, and another question in the place of an earlier one.
const asked = await page.locator(".question").count();
await lastAnswer().getByRole("button", { name: "Again" }).click();
await ended();
assert.equal(await page.locator(".question").count(), asked);
await page.locator(".question").first().getByRole("button", { name: "Edit" }).click();
assert.equal(await page.inputValue("#question"), questions.at(-1).question);
await page.press("#question", "Escape");
assert.equal(await page.inputValue("#question"), "");
await page.locator(".question").first().getByRole("button", { name: "Edit" }).click();
assert.equal(await ask(questions[0].question), questions[0].answer);
assert.equal(await page.locator(".question").count(), 1);

// History outlives the page.
await page.reload();
await page.waitForSelector("#history .open");
assert.equal(await page.locator("#history .open").count(), questions.length);
await page.locator("#history .open").first().click();
assert.equal((await lastAnswer().locator(".text").innerText()).trim(), questions[0].answer);
assert.equal(await page.locator(".question img").count(), 1);

// Stopped in the middle, what has come stays.
await page.evaluate(() => {
  const real = window.fetch;
  window.fetch = (path, options) => {
    if (path !== "v1/chat/completions") return real(path, options);
    window.fetch = real;
    const piece = new TextEncoder().encode('data: {"choices":[{"delta":{"content":"word "}}]}\n\n');
    return Promise.resolve(new Response(new ReadableStream({
      start(control) {
        const timer = setInterval(() => control.enqueue(piece), 20);
        options.signal.addEventListener("abort", () => {
          clearInterval(timer);
          control.error(options.signal.reason);
        });
      },
    })));
  };
});
await page.fill("#question", "Go on and on.");
await page.press("#question", "Enter");
await page.waitForFunction(() => [...document.querySelectorAll(".answer")].at(-1)?.innerText.includes("word word word word"));
await shot("streaming");
await page.click("#stop");
await ended();
assert.match(await lastAnswer().innerText(), /word word[^]*Stopped/);

// Esc stops before anything has come.
await answerWith("never seen", { pause: 5000 });
await page.fill("#question", "Wait.");
await page.press("#question", "Enter");
await page.waitForSelector("#stop:not([hidden])");
await page.keyboard.press("Escape");
await ended();
assert.match(await lastAnswer().innerText(), /Stopped/);

// Nothing of a hostile answer runs or is loaded.
await answerWith(HOSTILE, { thought: "<script>window.hurt=1</script> I think." });
await ask("Be hostile.");
assert.equal(await page.evaluate(() => window.hurt), undefined);
assert.equal(await lastAnswer().locator("script, iframe, a, img[onerror], [onclick], .text > img").count(), 0);
assert.equal(await lastAnswer().locator(".box").count(), 1);
assert.equal(await lastAnswer().locator(".point").count(), 1);
await shot("hostile");

// A video shows its first frame and length, before it is sent, after it, and from the history.
const videoIn = async (list) => {
  const video = page.locator(`${list} .video`);
  await page.waitForFunction((where) => document.querySelector(`${where} video`)?.readyState >= 2, list);
  assert.equal(await video.locator(".length").innerText(), "0:03");
  assert.equal(await video.locator("video").getAttribute("aria-label"), "Video clip.webm, 3 seconds");
  return video.locator("video");
};
const attachVideo = (buffer) => page.setInputFiles("#files", { name: "clip.webm", mimeType: "video/webm", buffer });
await page.click("#new-chat");
await attachVideo(VIDEO);
assert.equal(await (await videoIn("#attached")).getAttribute("controls"), null);
await shot("video-chosen");
await page.focus("#attached button");
assert.equal(await page.locator("#attached button").getAttribute("aria-label"), "Remove clip.webm");
await page.keyboard.press("Enter");
assert.equal(await page.locator("#attached li").count(), 0);
await attachVideo(Buffer.from("no video"));
assert.equal(await page.locator("#attached .file").innerText(), "clip.webm");
await page.click("#attached button");
await attachVideo(VIDEO);
await videoIn("#attached");
assert.notEqual(await ask("Which way does it move?"), "");
const played = await videoIn(".question");
await played.focus();
await page.keyboard.press("Space");
await page.waitForFunction(() => document.querySelector(".question video").currentTime > 0.1);
await page.reload();
await page.locator("#history .open").first().click();
await videoIn(".question");
await shot("video");

// Phone and dark.
await page.setViewportSize({ width: 375, height: 740 });
await page.emulateMedia({ colorScheme: "dark" });
await page.locator("#history-box summary").click();
await page.locator("#history .open").nth(1).click();
await page.locator("#history-box summary").click();
const wide = await page.evaluate(() => document.documentElement.scrollWidth);
assert.ok(wide <= 375, `the page is ${wide} pixels wide on a phone`);
await shot("phone");
await page.locator("#history-box summary").click();
await page.locator("#history .open").first().click();
await page.locator("#history-box summary").click();
await attachVideo(VIDEO);
await videoIn("#attached");
await videoIn(".question");
assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 375);
await shot("phone-video");
await page.click("#tab-tiers");
await page.waitForSelector("#cards td.good");
await shot("phone-tiers");
await page.setViewportSize({ width: 1200, height: 800 });
await page.waitForTimeout(4500);
await shot("tiers");
assert.match(await page.locator("#cards").innerText(), /KV cache in use/);
assert.equal(await page.locator("#cards td.good").count(), 2);
await page.click("#tab-chat");
await shot("dark");

assert.deepEqual(elsewhere, []);
assert.deepEqual(complaints, []);
await browser.close();
console.log("all right");
