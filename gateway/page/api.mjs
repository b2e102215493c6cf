// Calls of the gateway's own routes; paths are relative, so that a proxy may put it in a folder.
import { EventSplitter } from "./sse.mjs";

/** What the server refused, in its own words. `status` is 0 where it could not be reached. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {string} key - the API key, "" for none. */
export async function call(path, { key = "", ...options } = {}) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...options.headers };
  let response;
  try {
    response = await fetch(path, {
      ...options, headers, credentials: "omit", cache: "no-store", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  return response;
}

/** The body of a successful answer. Throws ApiError for others. */
export async function successful(response) {
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message || message;
  } catch {
    // Not the server's own words: a proxy's, say.
  }
  const wait = response.headers.get("retry-after");
  throw new ApiError(response.status, wait ? `${message} (again in ${wait} s)` : message);
}

export async function models(key) {
  return (await (await successful(await call("v1/models", { key }))).json()).data;
}

/** Prometheus' text, null where this server does not give it. */
export async function metricsText(key) {
  const response = await call("metrics", { key });
  return response.ok ? response.text() : null;
}

/** The report; its status may be 503, which is an answer too. */
export async function health() {
  const response = await call("health");
  if (!response.ok && response.status !== 503) await successful(response);
  return response.json();
}

/** Yields the chunks of a streamed answer; throws where it fails or ends early. */
export async function* chat(body, { key, signal }) {
  const response = await successful(await call("v1/chat/completions", {
    key, signal, method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  }));
  const splitter = new EventSplitter();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(0, "The answer ended too early.");
    for (const { event, data } of splitter.push(value)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (event === "error" || chunk.error) throw new ApiError(0, chunk.error.message);
      yield chunk;
    }
  }
}
