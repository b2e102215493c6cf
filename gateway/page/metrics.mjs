// Prometheus' text, as far as the page needs it.

/** Samples of a text, by name: [{labels, value}]. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
    }
    const value = Number(found[3].replace("Inf", "Infinity"));
    if (!samples.has(found[1])) samples.set(found[1], []);
    samples.get(found[1]).push({ labels, value });
  }
  return samples;
}

/** The sum of a family's samples, null where there are none. */
export function total(samples, name) {
  const found = samples?.get(name);
  return found ? found.reduce((sum, { value }) => sum + value, 0) : null;
}

// Stages of an answer in the order they pass, and the histograms the gateway keeps of them.
const STAGES = [
  ["prepared", "tandem:gateway_prepare_seconds"],
  ["image read", "tandem:gateway_preprocess_seconds"],
  ["image encoded", "tandem:gateway_encode_seconds"],
  ["features sent", "tandem:gateway_transfer_seconds"],
  ["queued", "vllm:request_queue_time_seconds"],
  ["prefilled", "vllm:request_prefill_time_seconds"],
  ["decoded", "vllm:request_decode_time_seconds"],
];

/** Where the time of one answer went, from the gateway's figures before and after it.
 *
 * @returns {[string, number][]} stage and milliseconds; empty where other answers ended as well,
 *   whose times cannot be told apart.
 */
export function stagesBetween(before, after) {
  const grown = (name) => (total(after, name) ?? 0) - (total(before, name) ?? 0);
  if (!before || !after || grown("vllm:request_decode_time_seconds_count") !== 1) return [];
  return STAGES.filter(([, name]) => grown(`${name}_count`) === 1)
    .map(([stage, name]) => [stage, Math.max(0, grown(`${name}_sum`) * 1000)]);
}

/** The bound below which this share of a histogram's values lies, since `before`; null for none. */
export function quantile(samples, before, name, share) {
  const buckets = new Map();
  for (const [table, sign] of [[samples, 1], [before, -1]]) {
    for (const { labels, value } of table?.get(`${name}_bucket`) ?? []) {
      const bound = Number(labels.le.replace("Inf", "Infinity"));
      buckets.set(bound, (buckets.get(bound) ?? 0) + sign * value);
    }
  }
  const sorted = [...buckets].sort(([one], [other]) => one - other);
  const count = sorted.at(-1)?.[1] ?? 0;
  if (count <= 0) return null;
  return sorted.find(([, below]) => below >= share * count)[0];
}
