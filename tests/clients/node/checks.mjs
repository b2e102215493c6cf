// What the scripts of Node clients share; see tests/clients/checks.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const URL_BASE = process.env.TANDEM_CLIENT_URL; // with /v1
export const KEY = process.env.TANDEM_CLIENT_KEY;
export const MODEL = process.env.TANDEM_CLIENT_MODEL;

export const SUM = "What is 2 plus 3?";
export const SUM_ANSWER = "5";
export const COLOR = "What color is the circle?";
export const COLOR_ANSWER = "red";
export const NAMING = "What is in the picture?";
export const NAME = "red circle";
export const NAMES = ["red circle", "blue circle", "red square", "blue square"];
export const LONG = "word ".repeat(40_000);

/** Bytes of the image. */
export const image = () => readFileSync(process.env.TANDEM_CLIENT_IMAGE);

/** The image as a data: URL. */
export const imageUrl = () => "data:image/png;base64," + image().toString("base64");

/** Content of a user's turn in OpenAI's form. */
export const aboutImage = (question) => [
  { type: "image_url", image_url: { url: imageUrl() } },
  { type: "text", text: question },
];

const line = (told) => String(told).split(/\s+/).join(" ").slice(0, 200);

/** Runs a check, which throws unless it holds, and prints a line for it. */
export async function check(name, run) {
  try {
    const told = await run();
    console.log(`ok ${name}${told === undefined ? "" : ": " + line(told)}`);
  } catch (error) {
    console.error(error);
    console.log(`FAILED ${name}: ${line(error)}`);
    process.exitCode = 1;
  }
}

/** Throws unless both are equal; returns what is told. */
export function same(actual, expected) {
  assert.deepEqual(actual, expected);
  return JSON.stringify(actual);
}

/** What a promise is rejected with. */
export async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a refusal, there was none");
}
