// A little Markdown: code, lists, headings, bold. What it makes of a text is data; `render` turns
// that into elements whose content is text and nothing else. Links and images stay as they are
// written: nothing of an answer is ever loaded or clicked.

/** Blocks of a text: {kind: "code", lang, text}, {kind: "list", ordered, start, items},
 *  {kind: "heading", level, parts}, {kind: "paragraph", parts}. */
export function parse(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let index = 0;
  while (index < lines.length) {
    const fence = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/.exec(lines[index]);
    if (fence) {
      const end = endOfCode(lines, index + 1, fence[1]);
      blocks.push({ kind: "code", lang: fence[2], text: lines.slice(index + 1, end).join("\n") });
      index = end + 1;
    } else if (itemOf(lines[index])) {
      const [block, end] = listAt(lines, index);
      blocks.push(block);
      index = end;
    } else {
      index = paragraphAt(lines, index, blocks);
    }
  }
  return blocks;
}

function endOfCode(lines, from, fence) {
  let end = from;
  while (end < lines.length) {
    const line = lines[end].trim();
    if (line.startsWith(fence) && line === fence[0].repeat(line.length)) break;
    end += 1;
  }
  return end;
}

function itemOf(line) {
  const found = /^(\s{0,12})(?:([-*+])|(\d{1,6})[.)])\s+(\S.*)$/.exec(line);
  return found && { indent: found[1].length, number: found[3] && Number(found[3]), text: found[4] };
}

function listAt(lines, index) {
  const first = itemOf(lines[index]);
  const ordered = first.number !== undefined;
  const items = [];
  for (; index < lines.length; index += 1) {
    const item = itemOf(lines[index]);
    if (item && items.length && item.indent <= first.indent
      && ordered !== (item.number !== undefined)) break;
    if (item) items.push({ depth: Math.min(5, item.indent >> 1), parts: inline(item.text) });
    else if (/^\s+\S/.test(lines[index])) {
      items.at(-1).parts.push({ kind: "text", text: "\n" }, ...inline(lines[index].trim()));
    } else break;
  }
  return [{ kind: "list", ordered, start: first.number ?? 1, items }, index];
}

function paragraphAt(lines, index, blocks) {
  const heading = /^(#{1,6})\s+(.*)$/.exec(lines[index]);
  if (heading) {
    blocks.push({ kind: "heading", level: heading[1].length, parts: inline(heading[2]) });
    return index + 1;
  }
  const kept = [];
  while (index < lines.length && lines[index].trim() && !/^ {0,3}(`{3,}|~{3,})/.test(lines[index])
    && !itemOf(lines[index]) && !(kept.length && /^#{1,6}\s/.test(lines[index]))) {
    kept.push(lines[index]);
    index += 1;
  }
  if (!kept.length) return index + 1;
  blocks.push({ kind: "paragraph", parts: inline(kept.join("\n")) });
  return index;
}

/** Parts of a line: {kind: "text" | "code" | "bold" | "italic", text}. */
export function inline(text) {
  const parts = [];
  const mark = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![*\w])\*([^*\s](?:[^*\n]*[^*\s])?)\*(?![*\w])/g;
  let end = 0;
  for (const found of text.matchAll(mark)) {
    if (found.index > end) parts.push({ kind: "text", text: text.slice(end, found.index) });
    if (found[1] !== undefined) parts.push({ kind: "code", text: found[1] });
    else if (found[2] !== undefined) parts.push({ kind: "bold", text: found[2] });
    else parts.push({ kind: "italic", text: found[3] });
    end = found.index + found[0].length;
  }
  if (end < text.length) parts.push({ kind: "text", text: text.slice(end) });
  return parts;
}

const INLINE = { code: "code", bold: "strong", italic: "em" };

/** The text as elements. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  for (const block of parse(text)) fragment.append(elementOf(block));
  return fragment;
}

function elementOf(block) {
  if (block.kind === "code") {
    const code = document.createElement("code");
    code.textContent = block.text;
    const pre = document.createElement("pre");
    pre.tabIndex = 0;  // so that the keyboard can scroll it
    pre.append(code);
    return pre;
  }
  if (block.kind === "list") {
    const list = document.createElement(block.ordered ? "ol" : "ul");
    if (block.ordered) list.start = block.start;
    for (const item of block.items) {
      const element = filled("li", item.parts);
      if (item.depth) element.className = `deep-${item.depth}`;
      list.append(element);
    }
    return list;
  }
  // An answer's headings lie below the page's own.
  return filled(block.kind === "heading" ? `h${Math.min(6, block.level + 2)}` : "p", block.parts);
}

function filled(name, parts) {
  const element = document.createElement(name);
  for (const { kind, text } of parts) {
    if (kind === "text") element.append(text);
    else {
      const inner = document.createElement(INLINE[kind]);
      inner.textContent = text;
      element.append(inner);
    }
  }
  return element;
}
