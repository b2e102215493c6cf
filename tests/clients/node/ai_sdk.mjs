// Vercel's AI SDK with its provider for servers of OpenAI's kind: https://github.com/vercel/ai.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, streamText } from "ai";
import { z } from "zod";

import * as checks from "./checks.mjs";
import { check, same } from "./checks.mjs";

const provider = (apiKey) =>
  createOpenAICompatible({
    name: "tandem",
    baseURL: checks.URL_BASE,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const asked = (content, { apiKey = checks.KEY, ...options } = {}) => ({
  model: provider(apiKey)(checks.MODEL),
  messages: [{ role: "user", content }],
  temperature: 0,
  maxOutputTokens: 48,
  ...options,
});
const aboutImage = (question) => [
  { type: "file", data: checks.image(), mediaType: "image/png" },
  { type: "text", text: question },
];

await check("text", async () =>
  same((await generateText(asked(checks.SUM))).text, checks.SUM_ANSWER),
);

await check("image", async () =>
  same((await generateText(asked(aboutImage(checks.COLOR)))).text, checks.COLOR_ANSWER),
);

await check("stream", async () => {
  const answer = streamText(asked(aboutImage(checks.COLOR)));
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  same((await answer.usage).outputTokens > 0, true);
  return same(text, checks.COLOR_ANSWER);
});

await check("schema", async () => {
  const output = Output.object({ schema: z.object({ label: z.enum(checks.NAMES) }) });
  const answer = await generateText(asked(aboutImage(checks.NAMING), { output }));
  return same(answer.output, { label: checks.NAME });
});

await check("context overflow", async () => {
  const error = await checks.refusal(generateText(asked(checks.LONG)));
  same(APICallError.isInstance(error), true);
  same([error.statusCode, error.isRetryable], [400, false]);
  return `APICallError, not retried: ${error.message}`;
});

await check("wrong key", async () => {
  const error = await checks.refusal(generateText(asked(checks.SUM, { apiKey: "wrong" })));
  same([APICallError.isInstance(error), error.statusCode], [true, 401]);
  return "APICallError 401, not retried";
});
