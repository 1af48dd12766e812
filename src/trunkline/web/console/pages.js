import { get } from "./api.js";

const PAGE_SIZE = 200;
const MOST_PAGES = 5;

/**
 * A window of at most 1000 items on a list that the API serves by cursor. Going further lets go of the pages at the other end,
 * so that neither the page nor a poll grows with the fleet.
 */
export class Pages {
  #path;
  #cursors = [null]; // where page i begins
  #first = 0;
  #shown = 1;

  /** @param {string} path of the list, relative to api/v1/ */
  constructor(path) {
    this.#path = path;
  }

  /** Whether pages before the window were let go of. */
  get hasEarlier() {
    return this.#first > 0;
  }

  /** Whether the list goes on after the window (as of the last load). */
  get hasMore() {
    return Boolean(this.#cursors[this.#first + this.#shown]);
  }

  /** Take in the next page; call `load` after it. */
  more() {
    if (!this.hasMore) return;
    if (this.#shown === MOST_PAGES) this.#first += 1;
    else this.#shown += 1;
  }

  /** Go one page back towards the start; call `load` after it. */
  earlier() {
    this.#first = Math.max(0, this.#first - 1);
  }

  /**
   * Load every page of the window anew.
   * @param {AbortSignal} signal
   * @returns {Promise<{items: Array, last: Object}>} all items, and the last answer (for its totals)
   */
  async load(signal) {
    const first = this.#first;
    const wanted = this.#shown;
    const items = [];
    let last, cursor = this.#cursors[first];
    for (let page = first; page < first + wanted; page += 1) {
      const after = cursor ? `&after=${encodeURIComponent(cursor)}` : "";
      last = await get(`${this.#path}?limit=${PAGE_SIZE}${after}`, { signal });
      items.push(...last.items);
      cursor = this.#cursors[page + 1] = last.next;
      if (!cursor) {
        if (this.#first === first) this.#shown = Math.min(this.#shown, page - first + 1);
        break;
      }
    }
    if (items.length === 0 && first > 0) this.earlier(); // what stood here is gone: find the end of the list again
    return { items, last };
  }
}
