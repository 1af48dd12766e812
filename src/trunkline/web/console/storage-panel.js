import { get, post, Problem } from "./api.js";
import { element, reconcile, setText } from "./element.js";
import { Note } from "./note.js";
import { Poller } from "./poller.js";
import { count, counted, showText } from "./text.js";
import { showAge } from "./times.js";
import { showState, stateChip } from "./words.js";

const SHOWN = 20;
const PARTS = new WeakMap();

/** Store items by hand, and see the batches that the rules made of all items. */
class StoragePanel extends HTMLElement {
  #poller = new Poller((signal) => this.#load(signal), (problem) => this.#listNote.ofPoll(problem));
  #input = element("textarea", { id: "storage-items", rows: "2", required: true, spellcheck: "false", placeholder: "[1, 2, 3]", onkeydown: (event) => this.#keyed(event) });
  #store = element("button", { type: "submit", class: "primary" }, "Store");
  #form = element("form", { onsubmit: (event) => this.#submit(event) },
    element("p", { class: "field wide" }, element("label", { for: "storage-items" }, "Items, as a JSON list"), this.#input), this.#store);
  #spooled = element("p", { class: "summary" });
  #note = new Note();
  #listNote = new Note();
  #list = element("ol", { class: "batches" });
  #empty = element("div", { class: "empty", hidden: true },
    element("p", {}, "No batches yet. Store a list above, or let a device send one over its line:"), element("pre", {}, "STORE [1,2,3]"));

  connectedCallback() {
    this.append(this.#form, this.#note.element,
      element("div", { class: "tools" }, element("h3", {}, "Latest batches"), this.#spooled),
      this.#listNote.element, element("div", { class: "scroll" }, this.#list, this.#empty));
    this.#poller.poke();
  }

  async #load(signal) {
    const { items, spooled, total } = await get(`batches?limit=${SHOWN}`, { signal, exact: true });
    reconcile(this.#list, items, (batch) => String(batch.id), makeBatch, showBatch);
    this.#empty.hidden = items.length > 0;
    const more = total > items.length ? `latest ${items.length} of ${count(total)} · ` : "";
    setText(this.#spooled, `${more}${spooled ? `${counted(spooled, "item")} in the spool` : "the spool is empty"}`);
  }

  #keyed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
  }

  async #submit(event) {
    event.preventDefault();
    const text = this.#input.value;
    const mistake = mistakeIn(text);
    if (mistake) {
      this.#note.problem(mistake);
      return;
    }
    this.#store.disabled = true;
    try {
      const { stored } = await post("items", text);
      this.#note.good(`${counted(stored, "item")} in the spool, safe on disk.`);
      if (this.#input.value === text) this.#input.value = "";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#note.problem(error);
    } finally {
      this.#store.disabled = false;
      this.#poller.restart();
    }
  }
}

/** What is wrong with the typed list, or null. The text itself is sent: parsing and writing it anew would round big numbers. */
function mistakeIn(text) {
  const next = "Write a list in square brackets, for example [1, \"two\", {\"three\": 3}].";
  try {
    return Array.isArray(JSON.parse(text)) ? null : { detail: "This is JSON, but not a list.", next };
  } catch (error) {
    return { detail: `This is not JSON: ${error.message}.`, next };
  }
}

function makeBatch() {
  const parts = {
    chip: stateChip(), file: element("bdi", { class: "file" }), count: element("span", { class: "minor" }),
    at: element("time", { class: "minor" }), items: element("bdi", { class: "items" }),
  };
  const item = element("li", {},
    element("div", { class: "batch-head" }, parts.chip, parts.file, parts.count, parts.at), element("p", {}, parts.items));
  PARTS.set(item, parts);
  return item;
}

function showBatch(item, batch) {
  const parts = PARTS.get(item);
  showState(parts.chip, batch.state);
  showText(parts.file, batch.file ?? "no file yet");
  setText(parts.count, counted(batch.count, "item"));
  showAge(parts.at, batch.stored_at ?? batch.created_at);
  const unseen = batch.count - batch.items.length;
  const texts = batch.items.map((value) => JSON.stringify(value));
  showText(parts.items, texts.join(", ") + (unseen > 0 ? `, and ${count(unseen)} more` : ""), 1000);
}

customElements.define("storage-panel", StoragePanel);
