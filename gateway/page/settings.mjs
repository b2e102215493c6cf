// Settings: what they are, where they are kept, and the dialog that changes them.

const NUMBERS = ["temperature", "top_p", "max_tokens"];
const KEPT = ["model", "system", "detail", ...NUMBERS];
const byId = (id) => document.getElementById(id);

function kept(storage, name) {
  try {
    return storage().getItem(name);
  } catch {
    return null;  // the browser keeps nothing for this page
  }
}

function keep(storage, name, value) {
  try {
    if (value) storage().setItem(name, value);
    else storage().removeItem(name);
  } catch {
    // Then they last as long as the page.
  }
}

function objectIn(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};  // an extension's, or cut off: better than a page that never opens
  }
}

const forever = () => localStorage;
const thisTab = () => sessionStorage;

/** Fields of a request from what was typed; what is empty is left to the model. */
export function requestFields(values) {
  const fields = {};
  if (values.model) fields.model = values.model;
  for (const name of NUMBERS) {
    const text = String(values[name] ?? "").trim();
    if (text !== "" && Number.isFinite(Number(text))) fields[name] = Number(text);
  }
  return fields;
}

export class Settings {
  #dialog = byId("settings");

  constructor({ changed }) {
    const stored = objectIn(kept(forever, "tandem-settings"));
    this.values = Object.fromEntries(KEPT.map((name) => [name, String(stored[name] ?? "")]));
    this.values.detail ||= "auto";
    const remembered = kept(forever, "tandem-key");
    this.key = remembered ?? kept(thisTab, "tandem-key") ?? "";
    this.remember = remembered !== null;
    byId("open-settings").addEventListener("click", () => this.open());
    byId("close-settings").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => {
      this.#read();
      changed();
    });
    // A form would submit on Enter; there is none, so that nothing can be sent anywhere.
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.matches("input")) this.#dialog.close();
    });
  }

  /** Shows the dialog; `field` gets the focus. */
  open(field = "key") {
    byId("set-key").value = this.key;
    byId("set-remember").checked = this.remember;
    for (const name of KEPT) byId(`set-${name}`).value = this.values[name];
    if (!this.#dialog.open) this.#dialog.showModal();
    byId(`set-${field}`).focus();
  }

  /** The models there are; one that is no more gives way to the first. */
  offer(names) {
    byId("set-model").replaceChildren(...names.map((name) => new Option(name, name)));
    if (!names.includes(this.values.model)) this.values.model = names[0] ?? "";
    byId("set-model").value = this.values.model;
  }

  #read() {
    this.key = byId("set-key").value.trim();
    this.remember = byId("set-remember").checked;
    for (const name of KEPT) this.values[name] = byId(`set-${name}`).value;
    keep(forever, "tandem-key", this.remember ? this.key : "");
    keep(thisTab, "tandem-key", this.remember ? "" : this.key);
    keep(forever, "tandem-settings", JSON.stringify(this.values));
  }
}
