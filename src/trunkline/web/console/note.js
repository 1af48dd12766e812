import { element, setAttribute } from "./element.js";
import { outsideText } from "./text.js";

/** A line for outcomes beside a form or a list, read out politely by screen readers; empty until there is something to say. */
export class Note {
  element = element("output", { class: "note" });
  #said = "";

  /** Say that something went well (or just is so). */
  good(text) {
    this.#say("good", text, () => [element("span", {}, outsideText(text))]);
  }

  /** Say that something ended badly, though the request itself was fine. */
  bad(text) {
    this.#say("bad", text, () => [element("span", {}, outsideText(text))]);
  }

  /** Say what an API problem is, and what to do next. */
  problem(problem) {
    this.#say("bad", problem.detail + problem.next, () => [
      element("strong", {}, outsideText(problem.detail)),
      problem.next ? element("span", { class: "next" }, outsideText(problem.next)) : null,
    ]);
  }

  /** For pollers: the problem of the last run, or none. */
  ofPoll(problem) {
    if (problem) this.problem(problem);
    else this.clear();
  }

  clear() {
    this.#say(null, "", () => []);
  }

  // The same words again are not put into the page again: they would be read out again every two seconds.
  #say(tone, text, build) {
    if (this.#said === `${tone}:${text}`) return;
    this.#said = `${tone}:${text}`;
    setAttribute(this.element, "data-tone", tone);
    this.element.replaceChildren(...build().filter(Boolean));
  }
}
