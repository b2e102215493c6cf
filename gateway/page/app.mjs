// Puts the page together.
import { models } from "./api.mjs";
import { Chat } from "./chat.mjs";
import { History } from "./history.mjs";
import { Settings } from "./settings.mjs";
import { Store } from "./store.mjs";
import { Tiers } from "./tiers.mjs";

const byId = (id) => document.getElementById(id);
const TABS = ["chat", "tiers"];

const settings = new Settings({ changed: () => meetModel() });
const store = new Store();
const chat = new Chat(settings, async (kept) => {
  await store.save(kept);
  await history.draw();
});
const history = new History(store, chat);
const tiers = new Tiers(settings);

async function meetModel() {
  try {
    const cards = await models(settings.key);
    settings.offer(cards.map(({ id }) => id));
    const card = cards.find(({ id }) => id === settings.values.model);
    byId("model").textContent = card?.id ?? "";
    if (card) chat.attachments.serve(card);
    chat.tell("");
  } catch (error) {
    byId("model").textContent = "";
    if (error.status === 401) chat.tell("This server wants an API key: Settings, API key.");
    else chat.tell(error.message);
  }
}

function select(name) {
  for (const tab of TABS) {
    const button = byId(`tab-${tab}`);
    button.setAttribute("aria-selected", String(tab === name));
    button.tabIndex = tab === name ? 0 : -1;
    byId(tab).hidden = tab !== name;
  }
  tiers.shown = name === "tiers";
}

TABS.forEach((tab, index) => {
  byId(`tab-${tab}`).addEventListener("click", () => select(tab));
  byId(`tab-${tab}`).addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const next = TABS[(index + 1) % TABS.length];
    select(next);
    byId(`tab-${next}`).focus();
  });
});

meetModel();
history.draw();
byId("question").focus();
