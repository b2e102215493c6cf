// Previews of videos: a frame and the length, or the name where the browser cannot read the file.

const blobs = new WeakMap();  // by file, as a conversation keeps it; goes with it
const urls = new Map();  // by element; withdrawn once the element has left the page

/** "0:07", "12:30", "1:02:03"; "" where the length is not known. */
export function clockOf(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** The same for screen readers: "7 seconds", "1 hour 2 minutes 3 seconds". */
export function spokenLength(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const whole = Math.round(seconds);
  const parts = [[Math.floor(whole / 3600), "hour"], [Math.floor(whole / 60) % 60, "minute"], [whole % 60, "second"]];
  const said = parts.filter(([count]) => count).map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  return said.join(" ") || "less than a second";
}

// A blob, because browsers seek in one, and not all of them play `data:` URLs.
function blobOf(file) {
  if (!blobs.has(file)) {
    const [head, data] = file.url.split(",", 2);
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    blobs.set(file, new Blob([bytes], { type: head.slice("data:".length).split(";")[0] }));
  }
  return blobs.get(file);
}

function withdrawUnseen() {
  for (const [element, url] of urls) {
    if (element.isConnected) continue;
    URL.revokeObjectURL(url);
    urls.delete(element);
  }
}

/** Shows a video's first frame and length.
 *
 * @param file - {kind, url, name}; `url` is a data URL in base64.
 * @param plays - whether it has controls, which the keyboard reaches.
 */
export function videoElement(file, { plays }) {
  const item = document.createElement("span");
  item.className = "video";
  const video = document.createElement("video");
  const length = document.createElement("span");
  length.className = "length";
  length.setAttribute("aria-hidden", "true");  // the label says it
  Object.assign(video, { preload: "auto", muted: !plays, playsInline: true, controls: plays });
  video.title = file.name;
  video.setAttribute("aria-label", `Video ${file.name}`);
  if (!plays) video.setAttribute("role", "img");
  video.addEventListener("loadedmetadata", () => {
    const spoken = spokenLength(video.duration);
    if (!video.videoWidth) item.replaceChildren(nameOf(file));  // sound alone, or an unknown codec
    else if (spoken) {
      length.textContent = clockOf(video.duration);
      video.setAttribute("aria-label", `Video ${file.name}, ${spoken}`);
    }
  });
  video.addEventListener("error", () => item.replaceChildren(nameOf(file)));
  const url = URL.createObjectURL(blobOf(file));
  urls.set(video, url);
  queueMicrotask(withdrawUnseen);  // by then, what is drawn together with this one is in the page
  video.src = `${url}#t=0.001`;  // or some browsers show no frame before it plays
  item.append(video, length);
  return item;
}

/** A file's name in a frame. */
export function nameOf({ name }) {
  const text = document.createElement("span");
  text.className = "file";
  text.textContent = name;
  return text;
}
