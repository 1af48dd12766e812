import { get } from "./api.js";
import { element, setText } from "./element.js";
import { link } from "./link.js";
import { Note } from "./note.js";
import { Poller } from "./poller.js";
import { count, showText } from "./text.js";
import { showAge } from "./times.js";

const FIGURES = [
  ["devices", "Devices online", (s) => `${count(s.devices_online)} / ${count(s.devices_total)}`],
  ["commands", "Commands open", (s) => count(s.commands_open)],
  ["jobs", "Jobs running", (s) => count(s.jobs_running)],
  ["spooled", "Items spooled", (s) => count(s.items_spooled)],
  ["stored", "Items stored", (s) => count(s.items_stored)],
  ["batches", "Batches", (s) => count(s.batches_stored)],
];

/** The head of the page: which node this is, its figures, and whether it answers. */
class StatusBar extends HTMLElement {
  #node = element("bdi", { class: "node-id" });
  #version = element("span", { class: "version" });
  #started = element("time");
  #figures = FIGURES.map(() => element("dd", {}, "–"));
  #lamp = element("span", { class: "lamp" }, "connecting");
  #access = element("span", { class: "open-access", hidden: true }, "open to this machine only; no login yet");
  #silentSince = element("time");
  #alert = element("strong", { role: "alert" });
  // The age stands outside the alert: inside, it would be read out anew every second.
  #banner = element("p", { class: "banner", hidden: true }, this.#alert, " It fell silent ", this.#silentSince, "; what you see is from before.");
  #note = new Note();

  connectedCallback() {
    this.append(
      element("div", { class: "identity" },
        element("p", {}, "node ", this.#node, " ", this.#version),
        element("p", {}, element("span", {}, "started ", this.#started), " ", this.#access)),
      element("dl", { class: "figures" }, ...FIGURES.map(([, label], i) => element("div", {}, element("dt", {}, label), this.#figures[i]))),
      this.#lamp,
      this.#note.element,
      this.#banner,
    );
    link.addEventListener("change", () => this.#showLink());
    const poller = new Poller((signal) => this.#load(signal), (problem) => this.#told(problem), { evenInSilence: true });
    link.addEventListener("doubt", () => poller.poke());
    poller.poke();
  }

  async #load(signal) {
    const status = await get("status", { signal });
    showText(this.#node, status.node);
    setText(this.#version, `v${status.version}`);
    showAge(this.#started, status.started_at);
    FIGURES.forEach(([, , say], i) => setText(this.#figures[i], say(status)));
    this.#access.hidden = status.open_access !== true;
    document.title = `${count(status.devices_online)}/${count(status.devices_total)} online · Trunkline`;
  }

  #told(problem) {
    link.report(!problem?.silent);
    this.#note.ofPoll(problem?.silent ? null : problem); // silence is the banner's
    if (!problem && this.#lamp.dataset.tone !== "good") this.#showLink();
  }

  #showLink() {
    this.#lamp.dataset.tone = link.answering ? "good" : "bad";
    setText(this.#lamp, link.answering ? "live" : "no answer");
    // Old figures stay readable, but must not look current.
    document.documentElement.classList.toggle("silent", !link.answering);
    this.#banner.hidden = link.answering;
    setText(this.#alert, link.answering ? "" : "The node does not answer; trying again.");
    showAge(this.#silentSince, link.silentSince);
    if (!link.answering) document.title = "no answer · Trunkline";
  }
}

customElements.define("status-bar", StatusBar);
