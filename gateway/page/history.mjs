// The list of earlier chats.

const byId = (id) => document.getElementById(id);

export class History {
  #store;
  #chat;

  constructor(store, chat) {
    this.#store = store;
    this.#chat = chat;
    byId("new-chat").addEventListener("click", () => {
      chat.show();
      this.draw();
    });
    byId("clear-history").addEventListener("click", async () => {
      if (!confirm("Delete all chats of this browser?")) return;
      chat.forget(chat.id);
      await store.clear();
      chat.show();
      await this.draw();
    });
    // Beside the chat where there is room, folded above it on a phone.
    const wide = matchMedia("(min-width: 52rem)");
    const fold = () => { byId("history-box").open = wide.matches; };
    wide.addEventListener("change", fold);
    fold();
  }

  async draw() {
    const chats = await this.#store.all();
    byId("history").replaceChildren(...chats.map((each) => this.#item(each)));
    byId("clear-history").hidden = chats.length === 0;
  }

  #item(each) {
    const item = document.createElement("li");
    const open = document.createElement("button");
    open.type = "button";
    open.className = "quiet open";
    open.textContent = each.title;
    open.title = new Date(each.time).toLocaleString();
    if (each.id === this.#chat.id) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => {
      this.#chat.show(each);
      this.draw();
    });
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "quiet";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Delete ${each.title}`);
    remove.addEventListener("click", async () => {
      this.#chat.forget(each.id);
      await this.#store.remove(each.id);
      if (each.id === this.#chat.id) this.#chat.show();
      await this.draw();
    });
    item.append(open, remove);
    return item;
  }
}
