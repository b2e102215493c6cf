// Files that go with the next question: chosen, dropped or pasted.
import { videoElement } from "./videos.mjs";

/** What a file is to the server: "image", "video" or null, by what its model takes. */
export function kindOf(type, modalities) {
  const kind = type.split("/")[0];
  return (kind === "image" || kind === "video") && modalities.includes(kind) ? kind : null;
}

function asDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** A preview; `plays` gives videos their controls. */
export function shown(file, { plays = false } = {}) {
  if (file.kind === "video") return videoElement(file, { plays });
  const image = document.createElement("img");
  image.src = file.url;
  image.alt = file.name;
  return image;
}

export class Attachments {
  #list = document.getElementById("attached");
  #chooser = document.getElementById("files");
  #tell;
  files = [];  // {kind, url, name}
  card = { input_modalities: ["image"] };  // the model's, as /v1/models has it

  /** @param {(problem: string) => void} tell - gets what is wrong with a file. */
  constructor(tell) {
    this.#tell = tell;
    document.getElementById("attach").addEventListener("click", () => this.#chooser.click());
    this.#chooser.addEventListener("change", () => {
      this.add(this.#chooser.files);
      this.#chooser.value = "";
    });
    document.addEventListener("paste", (event) => {
      if (!event.clipboardData?.files.length) return;
      event.preventDefault();
      this.add(event.clipboardData.files);
    });
    this.#acceptDrops();
  }

  #acceptDrops() {
    const over = (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();  // or the browser opens the file in the page's place
      document.body.classList.toggle("dropping", event.type === "dragover");
      if (event.type === "drop") this.add(event.dataTransfer.files);
    };
    document.addEventListener("dragover", over);
    document.addEventListener("drop", over);
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
  }

  /** Tells what the model takes. */
  serve(card) {
    this.card = card;
    this.#chooser.accept = this.#modalities.map((kind) => `${kind}/*`).join(",");
    const what = `Attach ${this.#modalities.map((kind) => `${kind}s`).join(" or ")}`;
    const button = document.getElementById("attach");
    button.setAttribute("aria-label", what);
    button.title = what;
    document.getElementById("takes").textContent = this.#modalities.join(" or ");
  }

  get #modalities() {
    return (this.card.input_modalities ?? ["image"]).filter((kind) => kind !== "text");
  }

  async add(files) {
    for (const file of [...files]) {
      const kind = kindOf(file.type, this.#modalities);
      const most = this.card[`${kind}_limits`]?.max_bytes ?? Infinity;
      if (kind === null) this.#tell(`${file.name} is no ${this.#modalities.join(" or ")}.`);
      else if (file.size > most) {
        this.#tell(`${file.name} has ${file.size} bytes, this server takes ${most}.`);
      } else {
        const url = await asDataUrl(file);
        this.set([...this.files, { kind, url, name: file.name || kind }]);
      }
    }
  }

  set(files) {
    this.files = files;
    this.#list.replaceChildren(...files.map((file, index) => {
      const item = document.createElement("li");
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Remove ${file.name}`);
      remove.addEventListener("click", () => this.set(this.files.toSpliced(index, 1)));
      item.append(shown(file), remove);
      return item;
    }));
  }
}
