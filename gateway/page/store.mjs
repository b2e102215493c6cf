// Chats in this browser's IndexedDB, bounded; the oldest go first.

export const MOST_CHATS = 50;
export const MOST_CHARS = 48e6;  // of all chats, images included

/** Ids of the chats that go, newest first given: {id, chars}[]. The newest always stays. */
export function surplus(chats, { mostChats = MOST_CHATS, mostChars = MOST_CHARS } = {}) {
  let chars = 0;
  return chats.filter((chat, index) => {
    chars += chat.chars;
    return index > 0 && (index >= mostChats || chars > mostChars);
  }).map(({ id }) => id);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Keeps chats: {id, title, time, chars, turns}. Without IndexedDB (a private window) it keeps
 *  nothing, and everything else works. */
export class Store {
  #open = null;

  #database() {
    this.#open ??= (() => {
      const request = indexedDB.open("tandem", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("chats", { keyPath: "id" });
      return done(request);
    })();
    return this.#open;
  }

  async #chats(mode) {
    return (await this.#database()).transaction("chats", mode).objectStore("chats");
  }

  /** Newest first, with their turns. */
  async all() {
    try {
      const chats = await done((await this.#chats("readonly")).getAll());
      return chats.sort((one, other) => other.time - one.time);
    } catch {
      return [];  // the browser keeps nothing for this page
    }
  }

  async save(chat) {
    const chars = JSON.stringify(chat.turns).length;
    try {
      await done((await this.#chats("readwrite")).put({ ...chat, chars }));
      const gone = surplus(await this.all());
      for (const id of gone) await this.remove(id);
    } catch {
      // Nothing is kept: no room, or the browser keeps nothing for this page.
    }
  }

  async remove(id) {
    await done((await this.#chats("readwrite")).delete(id));
  }

  async clear() {
    await done((await this.#chats("readwrite")).clear());
  }
}
