// openai, Node: https://github.com/openai/openai-node.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import * as checks from "./checks.mjs";
import { aboutImage, check, same } from "./checks.mjs";

const client = new OpenAI({ baseURL: checks.URL_BASE, apiKey: checks.KEY });
const asked = (content, options = {}) => ({
  model: checks.MODEL,
  messages: [{ role: "user", content }],
  temperature: 0,
  max_tokens: 48,
  ...options,
});
const ask = (content) => client.chat.completions.create(asked(content));

await check("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  return same(names, [checks.MODEL]);
});

await check("text", async () =>
  same((await ask(checks.SUM)).choices[0].message.content, checks.SUM_ANSWER),
);

await check("image", async () =>
  same((await ask(aboutImage(checks.COLOR))).choices[0].message.content, checks.COLOR_ANSWER),
);

await check("stream", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  let text = "";
  let usage;
  for await (const chunk of await client.chat.completions.create(
    asked(aboutImage(checks.COLOR), options),
  )) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage;
  }
  same(usage.completion_tokens > 0, true);
  return same(text, checks.COLOR_ANSWER);
});

await check("schema", async () => {
  const form = z.object({ label: z.enum(checks.NAMES) });
  const held = { response_format: zodResponseFormat(form, "form") };
  const answer = await client.chat.completions.parse(asked(aboutImage(checks.NAMING), held));
  return same(answer.choices[0].message.parsed, { label: checks.NAME });
});

await check("context overflow", async () => {
  const error = await checks.refusal(ask(checks.LONG));
  same(error instanceof OpenAI.BadRequestError, true);
  same(error.code, "context_length_exceeded");
  return `BadRequestError, code ${error.code}, param ${error.param}`;
});

await check("wrong key", async () => {
  const stranger = new OpenAI({ baseURL: checks.URL_BASE, apiKey: "wrong" });
  const error = await checks.refusal(stranger.models.list());
  same(error instanceof OpenAI.AuthenticationError, true);
  return "AuthenticationError";
});
