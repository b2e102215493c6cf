// A conversation's turns: as the server wants them, and as they are seen.
//
// A turn is {role: "user", text, files} or {role: "assistant", text, thought, figures, note}.
import { shown } from "./attachments.mjs";
import { figureList } from "./figures.mjs";
import { render } from "./markdown.mjs";
import { drawn, placesIn } from "./places.mjs";

/** Messages of a request. Answers that failed before a word are left out. */
export function messagesOf(turns, { system, detail }) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    if (turn.role === "assistant") {
      if (turn.text || turn.thought) {
        const thought = turn.thought ? { reasoning: turn.thought } : {};
        messages.push({ role: "assistant", content: turn.text, ...thought });
      }
      continue;
    }
    const parts = turn.files.map(({ kind, url }) => (kind === "video"
      ? { type: "video_url", video_url: { url } }
      : { type: "image_url", image_url: { url, detail } }));
    const text = turn.text ? [{ type: "text", text: turn.text }] : [];
    messages.push({ role: "user", content: parts.length ? [...parts, ...text] : turn.text });
  }
  return messages;
}

/** The image that an answer's places are in: the last one before it. */
export function imageBefore(turns, index) {
  const images = turns.slice(0, index).flatMap((turn) => turn.files ?? [])
    .filter(({ kind }) => kind === "image");
  return images.length ? { url: images.at(-1).url, number: images.length } : null;
}

function button(label, action) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "quiet";
  element.textContent = label;
  element.addEventListener("click", action);
  return element;
}

/** Shows one question. */
export function questionElement(turn, { edit }) {
  const item = document.createElement("li");
  item.className = "question";
  item.setAttribute("aria-label", "You");
  if (turn.files.length) {
    const files = document.createElement("div");
    files.className = "files";
    files.append(...turn.files.map((file) => shown(file, { plays: true })));
    item.append(files);
  }
  const text = document.createElement("p");
  text.textContent = turn.text;
  const actions = document.createElement("div");
  actions.className = "actions";
  actions.append(button("Edit", edit));
  item.append(text, actions);
  return item;
}

/** Shows one answer, and again as it grows. */
export class AnswerElement {
  #thought = document.createElement("details");
  #thoughtText = document.createElement("div");
  #body = document.createElement("div");
  #foot = document.createElement("div");

  constructor() {
    this.element = document.createElement("li");
    this.element.className = "answer";
    this.element.setAttribute("aria-label", "Answer");
    const summary = document.createElement("summary");
    summary.textContent = "Thought";
    this.#thought.append(summary, this.#thoughtText);
    this.#thought.hidden = true;
    this.#thoughtText.className = "thought";
    this.#body.className = "text";
    this.#foot.className = "foot";
    this.element.append(this.#thought, this.#body, this.#foot);
  }

  /** What there is so far. */
  grow(turn) {
    this.element.setAttribute("aria-busy", "true");
    this.#show(turn);
    if (!turn.text && !turn.thought) this.#body.replaceChildren(waiting());
  }

  /** The whole answer, its places drawn over `image`, and what can be done with it. */
  end(turn, { image, again }) {
    this.element.setAttribute("aria-busy", "false");
    this.#show(turn);
    const places = image ? placesIn(turn.text) : [];
    if (places.length) {
      const what = places.length === 1 ? "1 place" : `${places.length} places`;
      const which = image.number > 1 ? ` in image ${image.number}` : "";
      this.#body.append(drawn(image.url, places, `${what}${which}, from the answer`));
    }
    const actions = document.createElement("div");
    actions.className = "actions";
    // Browsers give pages without TLS no clipboard, loopback's apart.
    const { clipboard } = navigator;
    if (clipboard) actions.append(button("Copy", () => clipboard.writeText(turn.text)));
    actions.append(button("Again", again));
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = turn.note ?? "";
    this.#foot.replaceChildren(...(turn.note ? [note] : []), figureList(turn.figures), actions);
  }

  #show(turn) {
    this.#thought.hidden = !turn.thought;
    this.#thoughtText.textContent = turn.thought ?? "";
    this.#thought.classList.toggle("running", !turn.text);
    this.#body.replaceChildren(render(turn.text));
  }
}

function waiting() {
  const dots = document.createElement("p");
  dots.className = "waiting dim";
  dots.textContent = "…";
  return dots;
}
