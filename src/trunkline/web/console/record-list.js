import { element, reconcile, setText } from "./element.js";
import { isFinal } from "./job-stream.js";
import { Note } from "./note.js";
import { PageTurner } from "./page-turner.js";
import { Poller } from "./poller.js";
import { RecordRow } from "./record-row.js";
import { count } from "./text.js";

const WHILE_RUNNING = 1000;

/** All records, a window of at most 1000 at a time. */
class RecordList extends HTMLElement {
  #pages = new PageTurner("records", "records", () => this.#poller.restart());
  #poller = new Poller((signal) => this.#load(signal), (problem) => this.#note.ofPoll(problem));
  #summary = element("p", { class: "summary" });
  #list = element("ul", { class: "record-rows" });
  #empty = element("div", { class: "empty", hidden: true },
    element("p", {}, "No records yet. One comes to be when it is first put:"),
    element("pre", {}, "curl -X PUT -H 'Content-Type: application/json' \\\n  -d '{\"title\": \"Meter 1\"}' \\\n  ", new URL("api/v1/records/meter/1", document.baseURI).href));
  #note = new Note();

  connectedCallback() {
    this.append(element("div", { class: "tools" }, this.#summary), this.#note.element,
      element("div", { class: "scroll" },
        element("div", { class: "turn" }, this.#pages.earlier), this.#list, this.#empty, element("div", { class: "turn" }, this.#pages.more)));
    this.addEventListener("record-news", () => this.#poller.restart());
    this.#poller.poke();
  }

  async #load(signal) {
    const { items, last } = await this.#pages.load(signal);
    reconcile(this.#list, items, (record) => JSON.stringify([record.type, record.id]),
      () => element("li", {}, new RecordRow()), (item, record) => item.firstElementChild.show(record));
    const running = items.filter(({ job }) => job && !isFinal(job.state)).length;
    this.#empty.hidden = items.length > 0;
    const all = items.length === last.total ? `${count(last.total)} records` : `${count(items.length)} of ${count(last.total)} shown`;
    setText(this.#summary, items.length ? `${all}${running ? ` · ${count(running)} under way` : ""}` : "");
    return running ? WHILE_RUNNING : undefined;
  }
}

customElements.define("record-list", RecordList);
