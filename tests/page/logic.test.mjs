// The page's plain functions: `node --test tests/page/logic.test.mjs`.
import assert from "node:assert/strict";
import { test } from "node:test";

import { kindOf } from "../../gateway/page/attachments.mjs";
import { duration, figuresOf, rows } from "../../gateway/page/figures.mjs";
import { inline, parse } from "../../gateway/page/markdown.mjs";
import { parse as parseMetrics, quantile, stagesBetween, total } from "../../gateway/page/metrics.mjs";
import { placesIn } from "../../gateway/page/places.mjs";
import { requestFields } from "../../gateway/page/settings.mjs";
import { EventSplitter } from "../../gateway/page/sse.mjs";
import { surplus } from "../../gateway/page/store.mjs";
import { imageBefore, messagesOf } from "../../gateway/page/turns.mjs";
import { clockOf, spokenLength } from "../../gateway/page/videos.mjs";

test("events are the same however the stream is cut", () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const text = [": hello", "data: {\"a\":1}", "", "event: error", "data: one", "data: two", "", "data:[DONE]", "", ""].join(end);
    for (let cut = 0; cut <= text.length; cut += 1) {
      const splitter = new EventSplitter();
      // A last \r is held back: it may be half of a line's end.
      const got = [...splitter.push(text.slice(0, cut)), ...splitter.push(text.slice(cut)), ...splitter.push("\n")];
      assert.deepEqual(got, [
        { event: "message", data: "{\"a\":1}" },
        { event: "error", data: "one\ntwo" },
        { event: "message", data: "[DONE]" },
      ], `cut at ${cut} of ${JSON.stringify(text)}`);
    }
  }
});

test("code, lists, headings and bold are told apart", () => {
  const text = "# Title\nSome **bold** and `a*b*c`.\n\n- one\n  - two\n\n2. second\n```py\n- no list\n**no bold**\n```\nend";
  assert.deepEqual(parse(text).map((block) => block.kind), ["heading", "paragraph", "list", "list", "code", "paragraph"]);
  assert.deepEqual(parse(text)[1].parts, [
    { kind: "text", text: "Some " }, { kind: "bold", text: "bold" }, { kind: "text", text: " and " },
    { kind: "code", text: "a*b*c" }, { kind: "text", text: "." },
  ]);
  assert.equal(parse(text)[2].items[1].depth, 1);
  assert.equal(parse(text)[3].start, 2);
  assert.deepEqual(parse(text)[4], { kind: "code", lang: "py", text: "- no list\n**no bold**" });
});

test("code that has not ended yet is code", () => {
  assert.deepEqual(parse("```\nx"), [{ kind: "code", lang: "", text: "x" }]);
});

test("no character of an answer is lost but the marks", () => {
  const text = "<script>alert(1)</script> [a](javascript:x) ![b](https://c) 2 * 3 * 4 snake_case **";
  assert.deepEqual(inline(text), [{ kind: "text", text }]);
});

test("hostile texts take no time", () => {
  const begun = performance.now();
  for (const piece of ["*", "**", "`", "[", "- ", "#", "{", '{"bbox_2d":', "```\n", " * a", "*a *", "  ", "\n- "]) {
    const text = piece.repeat(20_000);
    parse(text);
    placesIn(text);
    inline(text);
  }
  assert.ok(performance.now() - begun < 10_000, `${performance.now() - begun} ms`);
});

test("boxes and points are found in lists, alone, in prose and where they are cut off", () => {
  const box = '{"bbox_2d": [100, 100, 400, 400], "label": "star"}';
  const star = { box: [100, 100, 400, 400], label: "star" };
  assert.deepEqual(placesIn(box), [star]);
  assert.deepEqual(placesIn(`Here [you] are:\n\`\`\`json\n[\n\t${box},\n\t{"point_2d": [500, 20]}\n]\n\`\`\``), [star, { point: [500, 20], label: "" }]);
  assert.deepEqual(placesIn(`[${box}, {"bbox_2d": [1, 2`), [star]);
  assert.deepEqual(placesIn('{"bbox_2d": [900, -5, 100, 2000], "label": 7}'), [{ box: [100, 0, 900, 1000], label: "" }]);
});

test("what is no place is none", () => {
  for (const text of ["", "{bbox_2d}", '{"bbox_2d": [1, 2, 3]}', '{"bbox_2d": ["1", 2, 3, 4]}', '{"point_2d": null}']) {
    assert.deepEqual(placesIn(text), []);
  }
});

test("a conversation becomes messages; what is not set is left to the model", () => {
  const image = { kind: "image", url: "data:image/png;base64,AA", name: "a" };
  const video = { kind: "video", url: "data:video/mp4;base64,AA", name: "b" };
  const turns = [
    { role: "user", text: "What?", files: [image, video] },
    { role: "assistant", text: "A star.", thought: "Hm.", figures: null },
    { role: "user", text: "And?", files: [] },
    { role: "assistant", text: "", thought: "", note: "Failed" },
  ];
  assert.deepEqual(messagesOf(turns, { system: "Be short.", detail: "low" }), [
    { role: "system", content: "Be short." },
    { role: "user", content: [
      { type: "image_url", image_url: { url: image.url, detail: "low" } },
      { type: "video_url", video_url: { url: video.url } },
      { type: "text", text: "What?" },
    ] },
    { role: "assistant", content: "A star.", reasoning: "Hm." },
    { role: "user", content: "And?" },
  ]);
  assert.deepEqual(imageBefore(turns, 1), { url: image.url, number: 1 });
  assert.equal(imageBefore(turns, 0), null);
  assert.deepEqual(requestFields({ model: "m", temperature: "0", top_p: " ", max_tokens: "12", system: "x" }), { model: "m", temperature: 0, max_tokens: 12 });
});

test("files are what the model takes", () => {
  assert.equal(kindOf("image/png", ["text", "image"]), "image");
  assert.equal(kindOf("video/mp4", ["text", "image"]), null);
  assert.equal(kindOf("text/plain", ["text", "image"]), null);
});

test("a video's length is said in short and in words", () => {
  const said = (seconds) => [clockOf(seconds), spokenLength(seconds)];
  assert.deepEqual(said(0.2), ["0:00", "less than a second"]);
  assert.deepEqual(said(1), ["0:01", "1 second"]);
  assert.deepEqual(said(59.6), ["1:00", "1 minute"]);
  assert.deepEqual(said(754), ["12:34", "12 minutes 34 seconds"]);
  assert.deepEqual(said(3723), ["1:02:03", "1 hour 2 minutes 3 seconds"]);
  assert.deepEqual(said(Infinity), ["", ""]);
  assert.deepEqual(said(NaN), ["", ""]);
});

const METRICS = (count, sum, decoded) => parseMetrics([
  "# HELP x y",
  `vllm:request_decode_time_seconds_count{model_name="a\\"b"} ${decoded}`,
  `vllm:request_decode_time_seconds_sum{model_name="a\\"b"} ${decoded * 0.5}`,
  `tandem:gateway_encode_seconds_bucket{le="0.1"} ${count / 2}`,
  `tandem:gateway_encode_seconds_bucket{le="+Inf"} ${count}`,
  `tandem:gateway_encode_seconds_count ${count}`,
  `tandem:gateway_encode_seconds_sum ${sum} 1700000000`,
].join("\n"));

test("metrics are read as Prometheus writes them", () => {
  const samples = METRICS(4, 0.5, 2);
  assert.deepEqual(samples.get("vllm:request_decode_time_seconds_count"), [{ labels: { model_name: 'a"b' }, value: 2 }]);
  assert.equal(total(samples, "tandem:gateway_encode_seconds_sum"), 0.5);
  assert.equal(total(samples, "nothing"), null);
  assert.equal(quantile(samples, null, "tandem:gateway_encode_seconds", 0.5), 0.1);
  assert.equal(quantile(samples, null, "tandem:gateway_encode_seconds", 0.95), Infinity);
  assert.equal(quantile(samples, samples, "tandem:gateway_encode_seconds", 0.5), null);
});

test("times of one answer are told only where no other ended meanwhile", () => {
  assert.deepEqual(stagesBetween(METRICS(4, 0.5, 2), METRICS(5, 0.75, 3)), [["image encoded", 250], ["decoded", 500]]);
  assert.deepEqual(stagesBetween(METRICS(4, 0.5, 2), METRICS(6, 0.75, 4)), []);
  assert.deepEqual(stagesBetween(null, METRICS(6, 0.75, 4)), []);
});

test("figures say what is known and nothing else", () => {
  const clock = { asked: 1000, first: 1250, last: 2250 };
  const usage = { prompt_tokens: 90, completion_tokens: 11, prompt_tokens_details: { image_tokens: 64 } };
  const figures = figuresOf({ usage, clock, stages: [], finish: "stop" });
  assert.equal(figures.rate, 10);
  assert.deepEqual(rows(figures), [
    ["image tokens", "64"], ["prompt tokens", "90"], ["answer tokens", "11"],
    ["first token", "250 ms"], ["tokens per second", "10.0"], ["whole", "1.25 s"],
  ]);
  assert.deepEqual(rows(figuresOf({ usage: null, clock, stages: [], finish: null })), [["first token", "250 ms"], ["whole", "1.25 s"]]);
  assert.equal(duration(4), "4 ms");
});

test("the oldest chats go when there are too many or they are too large", () => {
  const chats = [["a", 5], ["b", 5], ["c", 5]].map(([id, chars]) => ({ id, chars }));
  assert.deepEqual(surplus(chats, { mostChats: 2, mostChars: 100 }), ["c"]);
  assert.deepEqual(surplus(chats, { mostChats: 9, mostChars: 9 }), ["b", "c"]);
  assert.deepEqual(surplus(chats, { mostChats: 9, mostChars: 1 }), ["b", "c"]);
});
