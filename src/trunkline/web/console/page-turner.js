import { element } from "./element.js";
import { Pages } from "./pages.js";

/** A window on a long list, with the two buttons that move it; they show themselves when there is somewhere to go. */
export class PageTurner {
  #pages;
  #turning = false;
  #reload;

  /**
   * @param {string} path of the list, relative to api/v1/
   * @param {string} noun what it lists, for the buttons
   * @param {function(): void} reload asks the owner to call `load` now
   */
  constructor(path, noun, reload) {
    this.#pages = new Pages(path);
    this.#reload = reload;
    this.earlier = element("button", { type: "button", hidden: true, onclick: () => this.#turn("earlier") }, `Earlier ${noun}`);
    this.more = element("button", { type: "button", hidden: true, onclick: () => this.#turn("more") }, `More ${noun}`);
  }

  /** Load the window anew; see `Pages.load`. */
  async load(signal) {
    try {
      return await this.#pages.load(signal);
    } finally {
      this.#turning = false;
      this.earlier.hidden = !this.#pages.hasEarlier;
      this.more.hidden = !this.#pages.hasMore;
    }
  }

  // Until the page is there, nobody knows where the next one begins: a second click would only start the same load again.
  // (The button is not disabled meanwhile: that would take the focus away from the keyboard.)
  #turn(way) {
    if (this.#turning) return;
    this.#pages[way]();
    this.#reload();
    this.#turning = true;
  }
}
