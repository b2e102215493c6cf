// The chat: asks, shows what comes, stops, asks again; keeps it in the history.
import { ApiError, chat, metricsText } from "./api.mjs";
import { Attachments } from "./attachments.mjs";
import { figuresOf } from "./figures.mjs";
import { parse, stagesBetween } from "./metrics.mjs";
import { requestFields } from "./settings.mjs";
import { AnswerElement, imageBefore, messagesOf, questionElement } from "./turns.mjs";

const byId = (id) => document.getElementById(id);
const MOST_LINES = 8;

export class Chat {
  #follower = new Follower();
  #settings;
  #saved;
  #running = null;  // the AbortController of the answer under way
  #editing = null;  // index of the question that is edited
  #id = null;
  #forgotten = new Set();  // ids of chats that were deleted, maybe while they were answered
  turns = [];

  /** @param saved - gets {id, title, time, turns} when there is something new to keep. */
  constructor(settings, saved) {
    this.#settings = settings;
    this.#saved = saved;
    this.attachments = new Attachments((problem) => this.tell(problem));
    const question = byId("question");
    question.addEventListener("input", () => this.#fit());
    question.addEventListener("keydown", (event) => {
      // An input method's Enter picks a word.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.ask();
    });
    byId("send").addEventListener("click", () => this.ask());
    byId("stop").addEventListener("click", () => this.stop());
    byId("cancel-edit").addEventListener("click", () => this.#edit(null));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || byId("settings").open) return;
      if (this.#running) this.stop();
      else if (this.#editing !== null) this.#edit(null);
    });
  }

  get id() {
    return this.#id;
  }

  /** Shows a chat of the history, or an empty one. */
  show({ id = null, turns = [] } = {}) {
    this.stop();
    this.#id = id;
    this.turns = turns;
    this.#edit(null);
    this.tell("");
    this.#draw();
    this.#follower.toEnd();
    byId("question").focus();
  }

  stop() {
    this.#running?.abort();
  }

  /** Keeps a chat out of the history from now on. */
  forget(id) {
    this.#forgotten.add(id);
  }

  /** Shows what went wrong, beside the question; "" for nothing. */
  tell(problem) {
    byId("problem").textContent = problem;
    byId("problem").hidden = !problem;
  }

  /** Asks what stands in the question's field. */
  async ask() {
    const text = byId("question").value.trim();
    const { files } = this.attachments;
    if (this.#running || (!text && !files.length)) return;
    const kept = this.#editing === null ? this.turns : this.turns.slice(0, this.#editing);
    this.turns = [...kept, { role: "user", text, files }];
    this.#edit(null);
    await this.#answer();
  }

  async #again(index) {
    if (this.#running) return;
    this.turns = this.turns.slice(0, index);
    await this.#answer();
  }

  #edit(index) {
    const wasEditing = this.#editing !== null;
    this.#editing = index;
    const turn = index === null ? { text: "", files: [] } : this.turns[index];
    byId("editing").hidden = index === null;
    byId("question").value = turn.text;
    this.attachments.set(turn.files);
    this.#fit();
    if (index !== null || wasEditing) byId("question").focus();
  }

  async #answer() {
    const turn = { role: "assistant", text: "", thought: "", figures: null, note: "" };
    const asked = this.turns;
    const chatId = (this.#id ??= crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`);
    this.turns = [...asked, turn];
    const running = new AbortController();
    this.#set(running);
    this.tell("");
    const shown = this.#draw();
    this.#follower.toEnd();
    say("Waiting for the answer");
    await this.#receive(asked, turn, running.signal, () => shown.grow(turn));
    this.#set(null);
    this.#draw();  // another chat may be shown by now, whose last answer was drawn as running
    say(`${turn.text && `Answer: ${turn.text}`} ${turn.note}`);
    if (this.#forgotten.has(chatId)) return;
    const only = asked[0].files[0]?.kind === "video" ? "Video" : "Image";
    const title = asked.find(({ text }) => text)?.text.slice(0, 80) ?? only;
    await this.#saved({ id: chatId, title, time: Date.now(), turns: [...asked, turn] });
  }

  async #receive(asked, turn, signal, grown) {
    const { key, values } = this.#settings;
    const body = { ...requestFields(values), messages: messagesOf(asked, values) };
    const before = await figuresNow(key);
    const clock = { asked: performance.now(), first: null, last: performance.now() };
    const frame = everyFrame(grown);
    let usage = null;
    let finish = null;
    try {
      for await (const chunk of chat(body, { key, signal })) {
        const choice = chunk.choices[0];
        const text = choice?.delta?.content ?? "";
        const thought = choice?.delta?.reasoning ?? "";
        if (text || thought) {
          clock.last = performance.now();
          clock.first ??= clock.last;
          turn.text += text;
          turn.thought += thought;
          frame.ask();
        }
        finish = choice?.finish_reason ?? finish;
        usage = chunk.usage ?? usage;
      }
      if (finish === "length") turn.note = "Cut off at the limit of tokens.";
    } catch (error) {
      turn.note = this.#failed(error);
    }
    frame.cancel();
    clock.last = performance.now();
    const stages = usage ? stagesBetween(before, await figuresNow(key)) : [];
    turn.figures = clock.first === null ? null : figuresOf({ usage, clock, stages, finish });
  }

  #failed(error) {
    if (error.name === "AbortError") return "Stopped.";
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) this.#settings.open("key");
    return `Failed: ${error.message}`;
  }

  #set(running) {
    this.#running = running;
    byId("send").hidden = running !== null;
    byId("stop").hidden = running === null;
  }

  /** Shows all turns; returns the last answer's element. */
  #draw() {
    let last = null;
    const items = this.turns.map((turn, index) => {
      if (turn.role === "user") return questionElement(turn, { edit: () => this.#startEdit(index) });
      last = new AnswerElement();
      if (this.#running && index === this.turns.length - 1) last.grow(turn);
      else {
        const image = imageBefore(this.turns, index);
        last.end(turn, { image, again: () => this.#again(index) });
      }
      return last.element;
    });
    byId("turns").replaceChildren(...items);
    byId("empty").hidden = items.length > 0;
    return last;
  }

  #startEdit(index) {
    if (!this.#running) this.#edit(index);
  }

  #fit() {
    const field = byId("question");
    field.rows = Math.min(MOST_LINES, Math.max(1, field.value.split("\n").length));
  }
}

/** Samples of the gateway's metrics; null where it gives none, which costs the stages alone. */
async function figuresNow(key) {
  try {
    const text = await metricsText(key);
    return text === null ? null : parse(text);
  } catch {
    return null;
  }
}

/** Runs an action at most once a frame. */
function everyFrame(action) {
  let asked = null;
  return {
    ask: () => {
      asked ??= requestAnimationFrame(() => {
        asked = null;
        action();
      });
    },
    cancel: () => cancelAnimationFrame(asked),
  };
}

/** Keeps the end in view while it grows, unless somebody scrolled up to read. */
class Follower {
  #talk = byId("talk");
  #follows = true;

  constructor() {
    this.#talk.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#talk;
      this.#follows = scrollHeight - scrollTop - clientHeight < 80;
    });
    // Images grow when they are decoded, answers as they come.
    new ResizeObserver(() => this.#follows && this.toEnd()).observe(byId("turns"));
  }

  toEnd() {
    this.#follows = true;
    this.#talk.scrollTop = this.#talk.scrollHeight;
  }
}

/** Tells screen readers, once and not word by word. */
export function say(text) {
  byId("live").textContent = text;
}
