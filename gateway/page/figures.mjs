// What an answer cost: counts of the server, times of the server's and this browser's clocks.

/** Three digits or so: `4 ms`, `250 ms`, `1.25 s`. */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** Figures of one answer, to be kept with it.
 *
 * @param usage - the stream's last chunk has it; null where it never came.
 * @param clock - {asked, first, last} in milliseconds; `first` null before the first piece came.
 * @param stages - [stage, milliseconds] of the gateway, in order.
 */
export function figuresOf({ usage, clock, stages, finish }) {
  const details = usage?.prompt_tokens_details ?? {};
  const decoded = stages.find(([stage]) => stage === "decoded")?.[1] ?? clock.last - clock.first;
  const steps = (usage?.completion_tokens ?? 0) - 1;
  return {
    finish,
    prompt: usage?.prompt_tokens ?? null,
    image: details.image_tokens ?? null,
    video: details.video_tokens ?? null,
    cached: details.cached_tokens ?? null,
    completion: usage?.completion_tokens ?? null,
    first: clock.first === null ? null : clock.first - clock.asked,
    rate: steps > 0 && decoded > 0 ? steps / (decoded / 1000) : null,
    whole: clock.last - clock.asked,
    stages,
  };
}

/** [name, text] of what is known. */
export function rows(figures) {
  const count = (value, name) => (value ? [[name, String(value)]] : []);
  return [
    ...count(figures.image, "image tokens"),
    ...count(figures.video, "video tokens"),
    ...count(figures.prompt, "prompt tokens"),
    ...count(figures.cached, "of them cached"),
    ...count(figures.completion, "answer tokens"),
    ...(figures.first === null ? [] : [["first token", duration(figures.first)]]),
    ...(figures.rate === null ? [] : [["tokens per second", figures.rate.toFixed(1)]]),
    ["whole", duration(figures.whole)],
  ];
}

function pair(list, name, text) {
  const box = document.createElement("div");
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = name;
  value.textContent = text;
  box.append(term, value);
  list.append(box);
}

/** Figures as a list, with a bar of where the time went. */
export function figureList(figures) {
  const fragment = document.createDocumentFragment();
  if (!figures) return fragment;
  const list = document.createElement("dl");
  list.className = "figures";
  for (const [name, text] of rows(figures)) pair(list, name, text);
  fragment.append(list);
  if (figures.stages.length) fragment.append(whereTimeWent(figures));
  return fragment;
}

function whereTimeWent({ stages, whole }) {
  const details = document.createElement("details");
  details.className = "stages";
  const summary = document.createElement("summary");
  summary.textContent = "Where the time went";
  const list = document.createElement("dl");
  const sum = stages.reduce((total, [, ms]) => total + ms, 0);
  const all = [...stages, ["elsewhere (network, browser)", whole - sum]];
  for (const [name, ms] of all.filter(([, each]) => each >= 0.05)) {
    pair(list, name, ms < 10 ? `${ms.toFixed(1)} ms` : duration(ms));
    const bar = document.createElement("dd");  // of a <dl>, which takes nothing else
    bar.className = "bar";
    bar.setAttribute("aria-hidden", "true");
    bar.style.width = `${Math.min(100, (100 * ms) / Math.max(whole, 1)).toFixed(1)}%`;
    list.lastChild.append(bar);
  }
  details.append(summary, list);
  return details;
}
