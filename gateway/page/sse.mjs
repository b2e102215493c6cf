// Server-sent events, as the chat route sends them.

/** Cuts a stream of text into events; `push` returns those that are whole. */
export class EventSplitter {
  #rest = "";

  /** @returns {{event: string, data: string}[]} */
  push(text) {
    this.#rest += text;
    // A line break may be cut in two: a last \r waits for what follows it.
    const whole = this.#rest.endsWith("\r") ? this.#rest.slice(0, -1) : this.#rest;
    const parts = whole.split(/\r\n\r\n|\n\n|\r\r/);
    const tail = parts.pop();
    this.#rest = tail + this.#rest.slice(whole.length);
    return parts.map(eventOf).filter((event) => event !== null);
  }
}

function eventOf(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    if (name === "data") data.push(value);
  }
  return data.length ? { event, data: data.join("\n") } : null;
}
