// The tiers as the gateway sees them just now.
import { health, metricsText } from "./api.mjs";
import { duration } from "./figures.mjs";
import { parse, quantile, total } from "./metrics.mjs";

const INTERVAL_MS = 2000;
const KEPT_SAMPLES = 60;
const byId = (id) => document.getElementById(id);
const WORDS = {
  ok: "Everything is answered.",
  degraded: "Text is answered, images are not: the vision tier is away.",
  unavailable: "Nothing is answered: the decoder tier is away.",
  draining: "The gateway is ending.",
};

/** Figures to show: [card, [[name, text], ...]][], from samples now and at the look before. */
export function cardsOf(report, now, before, seconds) {
  const rate = (name) => (before && seconds > 0
    ? Math.max(0, (total(now, name) ?? 0) - (total(before, name) ?? 0)) / seconds : null);
  const share = (part, whole) => (total(now, whole)
    ? `${((100 * (total(now, part) ?? 0)) / total(now, whole)).toFixed(0)} %` : null);
  const time = (name, part) => {
    const bound = quantile(now, null, name, part);
    if (bound === null) return null;
    return bound === Infinity ? "above the largest bound" : `≤ ${duration(bound * 1000)}`;
  };
  const number = (value, digits = 0) => (value === null ? null : value.toFixed(digits));
  const percent = (value) => (value === null ? null : `${(100 * value).toFixed(1)} %`);
  const cards = [
    ["Gateway", [
      ["requests at work", number(total(now, "tandem:gateway_requests"))],
      ["answers", number(total(now, "vllm:request_success_total"))],
      ["first token, half of answers", time("vllm:time_to_first_token_seconds", 0.5)],
      ["first token, 95 of 100", time("vllm:time_to_first_token_seconds", 0.95)],
    ]],
    ["Decoder tier", [
      ...addresses(report, now, "decoder"),
      ["running", number(total(now, "vllm:num_requests_running"))],
      ["waiting", number(total(now, "vllm:num_requests_waiting"))],
      ["KV cache in use", percent(total(now, "vllm:kv_cache_usage_perc"))],
      ["tokens per second", number(rate("vllm:generation_tokens_total"), 1)],
      ["prompt tokens cached", share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")],
    ]],
    ["Vision tier", [
      ...addresses(report, now, "vision"),
      ["images asked about", number(total(now, "tandem:gateway_images_total"))],
      ["of them encoded", number(total(now, "tandem:gateway_images_needed_total"))],
      ["encoding, half of images", time("tandem:gateway_encode_seconds", 0.5)],
      ["encoding, 95 of 100", time("tandem:gateway_encode_seconds", 0.95)],
      ["asked again elsewhere", number(total(now, "tandem:gateway_encode_retries_total"))],
    ]],
  ];
  return cards.map(([title, rows]) => [title, rows.filter(([, text]) => text !== null)]);
}

function addresses(report, samples, tier) {
  const counted = (samples?.get("tandem:gateway_tier_addresses") ?? [])
    .filter(({ labels, value }) => labels.tier === tier && value > 0)
    .map(({ labels, value }) => `${value} ${labels.state.replace("_", " ")}`);
  const state = String(report.tiers?.[tier] ?? "unknown").replace("_", " ");
  return [["state", state], ...(counted.length ? [["addresses", counted.join(", ")]] : [])];
}

export class Tiers {
  #settings;
  #timer = null;
  #before = null;  // {samples, time} of the last look
  #rates = [];
  #shown = false;
  #looking = false;

  constructor(settings) {
    this.#settings = settings;
    document.addEventListener("visibilitychange", () => this.#schedule(0));
  }

  /** Whether the tab is in view. */
  set shown(value) {
    this.#shown = value;
    this.#schedule(0);
  }

  #schedule(after) {
    clearTimeout(this.#timer);
    if (this.#shown && !document.hidden) this.#timer = setTimeout(() => this.#look(), after);
  }

  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const report = await health();
      const text = await metricsText(this.#settings.key);
      this.#draw(report, text === null ? null : parse(text), performance.now());
    } catch (error) {
      tell("error", error.message);
    }
    this.#looking = false;
    this.#schedule(INTERVAL_MS);
  }

  #draw(report, samples, time) {
    const keyless = samples === null ? " Figures need the API key." : "";
    tell(report.status, (WORDS[report.status] ?? report.status) + keyless);
    const before = this.#before;
    const seconds = before ? (time - before.time) / 1000 : 0;
    const cards = cardsOf(report, samples, before?.samples, seconds);
    this.#before = { samples, time };
    if (seconds > 0 && samples) {
      const name = "vllm:generation_tokens_total";
      const grown = (total(samples, name) ?? 0) - (total(before.samples, name) ?? 0);
      this.#rates = [...this.#rates, Math.max(0, grown) / seconds].slice(-KEPT_SAMPLES);
    }
    byId("cards").replaceChildren(...cards.map(cardElement));
    if (this.#rates.length > 1) byId("cards").children[1].append(curve(this.#rates));
  }
}

/** Says it once: a live region repeats what is set again. */
function tell(status, text) {
  const place = byId("tiers-state");
  place.className = `notice ${status === "ok" ? "good" : "error"}`;
  if (place.textContent !== text) place.textContent = text;
}

function cardElement([title, rows]) {
  const card = document.createElement("section");
  const heading = document.createElement("h2");
  heading.textContent = title;
  const table = document.createElement("table");
  for (const [name, text] of rows) {
    const row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = text;
    if (name === "state") row.lastChild.className = text === "serving" ? "good" : "bad";
  }
  card.append(heading, table);
  return card;
}

const SVG = "http://www.w3.org/2000/svg";

function curve(values) {
  const most = Math.max(...values, 1);
  const figure = document.createElement("figure");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT_SAMPLES - 1} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Tokens per second, at most ${most.toFixed(0)}`);
  const line = document.createElementNS(SVG, "polyline");
  const from = KEPT_SAMPLES - values.length;
  line.setAttribute("points", values.map((value, index) => `${from + index},${29 - (28 * value) / most}`).join(" "));
  svg.append(line);
  const caption = document.createElement("figcaption");
  caption.textContent = `tokens per second, two minutes, at most ${most.toFixed(0)}`;
  figure.append(svg, caption);
  return figure;
}
