import { makeDeviceRow, searchable, showDevice } from "./device-row.js";
import { element, reconcile, setText } from "./element.js";
import { Note } from "./note.js";
import { PageTurner } from "./page-turner.js";
import { Poller } from "./poller.js";
import { count, outsideText } from "./text.js";

const COLUMNS = ["Device", "State", "Address", "Last seen", "First seen"];

/** All devices, a window of at most 1000 at a time. Choosing one raises "device-chosen" with {id, write: true}. */
class DeviceTable extends HTMLElement {
  #pages = new PageTurner("devices", "devices", () => this.#poller.restart());
  #poller = new Poller((signal) => this.#load(signal), (problem) => this.#note.ofPoll(problem));
  #devices = [];
  #answer = null;
  #chosen = "";
  #filter = element("input", { id: "device-filter", type: "search", placeholder: "id, address, reason …", autocomplete: "off", spellcheck: "false", dir: "auto", oninput: () => this.#show() });
  #onlineOnly = element("input", { type: "checkbox", onchange: () => this.#show() });
  #summary = element("p", { class: "summary" });
  #rows = element("tbody", { role: "rowgroup", onclick: (event) => this.#clicked(event), onkeydown: (event) => this.#keyed(event) });
  #empty = element("div", { class: "empty", hidden: true });
  #note = new Note();

  connectedCallback() {
    const head = COLUMNS.map((name) => element("th", { role: "columnheader", scope: "col" }, name));
    this.append(
      element("div", { class: "tools" },
        element("label", { for: "device-filter", class: "unseen" }, "Filter the devices shown"), this.#filter,
        element("label", { class: "toggle" }, this.#onlineOnly, "online only"), this.#summary),
      this.#note.element,
      element("div", { class: "scroll" },
        element("div", { class: "turn" }, this.#pages.earlier),
        element("table", { role: "table", "aria-labelledby": "devices-title" },
          element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)), this.#rows),
        this.#empty,
        element("div", { class: "turn" }, this.#pages.more)),
    );
    this.#poller.poke();
  }

  /** Mark the row of the chosen device, whether or not it is loaded. */
  markChosen(id) {
    this.#chosen = id;
    this.#show();
  }

  async #load(signal) {
    const { items, last } = await this.#pages.load(signal);
    this.#devices = items;
    this.#answer = last;
    this.#show();
  }

  #show() {
    if (!this.#answer) return;
    const sought = this.#filter.value.trim().toLowerCase();
    const matching = this.#devices.filter((device) =>
      (device.online || !this.#onlineOnly.checked) && (!sought || searchable(device).includes(sought)));
    reconcile(this.#rows, matching, (device) => device.id, makeDeviceRow,
      (row, device) => showDevice(row, device, device.id === this.#chosen));
    this.#summarize(matching.length);
    this.#showEmpty(matching.length, this.#filter.value.trim());
    this.#keepOneTabStop();
  }

  #summarize(shown) {
    const { total, online } = this.#answer;
    const all = shown === total ? `${count(total)} devices` : `${count(shown)} of ${count(total)} shown`;
    setText(this.#summary, total ? `${all} · ${count(online)} online` : "");
  }

  #showEmpty(shown, sought) {
    this.#rows.parentElement.hidden = shown === 0;
    this.#empty.hidden = shown > 0;
    if (shown > 0) return;
    const state = `${this.#devices.length}:${this.#answer.total}:${sought}`;
    if (this.#empty.dataset.state === state) return;
    this.#empty.dataset.state = state;
    this.#empty.replaceChildren(...(this.#devices.length ? this.#noMatch(sought) : noDevices()));
  }

  #noMatch(sought) {
    const loaded = `None of the ${count(this.#devices.length)} loaded devices match.`;
    const unloaded = this.#answer.total > this.#devices.length;
    if (!unloaded || !sought) return [element("p", {}, loaded)];
    // The filter only sees what is loaded; an exact id can be used without paging to it.
    const use = () => this.#choose(sought);
    return [
      element("p", {}, `${loaded} The filter looks no further.`),
      element("p", {}, element("button", { type: "button", onclick: use }, "Use ", outsideText(sought), " as the exact id")),
    ];
  }

  #clicked(event) {
    const row = event.target.closest("tr");
    // A drag over a row's text means to copy it, not to choose the device.
    if (row && (event.target.closest("button") || getSelection().isCollapsed)) this.#choose(row.dataset.id);
  }

  #choose(id) {
    this.dispatchEvent(new CustomEvent("device-chosen", { bubbles: true, detail: { id, write: true } }));
  }

  // A thousand tab stops would wall off the rest of the page: one row is in the tab order, arrows go to the others.
  #keepOneTabStop() {
    const buttons = this.#buttons();
    const current = buttons.find((button) => button === document.activeElement)
      ?? buttons.find((button) => button.getAttribute("aria-pressed") === "true") ?? buttons[0];
    for (const button of buttons) {
      const index = button === current ? 0 : -1;
      if (button.tabIndex !== index) button.tabIndex = index;
    }
  }

  #keyed(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
    this.#keepOneTabStop();
  }

  #buttons() {
    return [...this.#rows.querySelectorAll(".row-button")];
  }
}

function noDevices() {
  return [
    element("p", {}, "No device has called yet. Let one say hello:"),
    element("pre", {}, "printf 'HELLO d1\\n' | nc 127.0.0.1 7400"),
    element("p", {}, "or start a fleet of simulated ones:"),
    element("pre", {}, "trunkline simulate"),
  ];
}

customElements.define("device-table", DeviceTable);
