// Boxes and points that an answer names, as Qwen3-VL writes them: JSON with `bbox_2d` or
// `point_2d`, coordinates from 0 to 1000 of the image's width and height.

const MOST_PLACES = 200;

/** @returns {{box?: number[], point?: number[], label: string}[]} in the answer's order. */
export function placesIn(text) {
  const places = [];
  // Objects without objects in them, wherever they stand: in a list, alone, in prose, in a list
  // that is cut off by the limit of tokens.
  for (const [found] of text.matchAll(/\{[^{}]*\}/g)) {
    const place = found.includes("_2d") ? placeOf(parsed(found)) : null;
    if (place && places.length < MOST_PLACES) places.push(place);
  }
  return places;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;  // braces of prose
  }
}

function placeOf(entry) {
  if (entry === null) return null;
  const label = typeof entry.label === "string" ? entry.label.slice(0, 80) : "";
  const box = numbers(entry.bbox_2d, 4);
  if (box) {
    const [x1, y1, x2, y2] = box;
    return {
      box: [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)], label,
    };
  }
  const point = numbers(entry.point_2d, 2);
  return point && { point, label };
}

function numbers(value, count) {
  if (!Array.isArray(value) || value.length !== count) return null;
  if (!value.every((number) => Number.isFinite(number))) return null;
  return value.map((number) => Math.min(1000, Math.max(0, number)));
}

const SVG = "http://www.w3.org/2000/svg";

/** The image with the places over it. */
export function drawn(url, places, caption) {
  const figure = document.createElement("figure");
  figure.className = "places";
  const frame = document.createElement("div");
  const image = document.createElement("img");
  image.src = url;
  image.alt = `The image with ${places.length} marked: ${places.map((p) => p.label).join(", ")}`;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1000 1000");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  frame.append(image, svg);
  places.forEach((place, index) => {
    svg.append(shapeOf(place, index));
    frame.append(nameOf(place, index));
  });
  const text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(frame, text);
  return figure;
}

function shapeOf({ box, point }, index) {
  const [x1, y1, x2, y2] = box ?? [...point, ...point];
  // A point is a line of no length: its round ends stay round, however the image is stretched.
  const shape = document.createElementNS(SVG, box ? "rect" : "line");
  const sides = box
    ? { x: x1, y: y1, width: x2 - x1, height: y2 - y1 } : { x1, y1, x2, y2 };
  for (const [name, value] of Object.entries(sides)) shape.setAttribute(name, String(value));
  shape.setAttribute("class", `${box ? "box" : "point"} hue-${index % 6}`);
  return shape;
}

function nameOf({ box, point, label }, index) {
  const name = document.createElement("span");
  name.className = `label hue-${index % 6}`;
  name.textContent = label || String(index + 1);
  const [x, y] = box ?? point;
  name.style.left = `${Math.min(x, 900) / 10}%`;
  name.style.top = `${y / 10}%`;
  if (y < 60) name.classList.add("inside");
  return name;
}
