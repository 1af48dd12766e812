import { get, part, post, Problem } from "./api.js";
import { isUnfinished, showCommands, timeTaken } from "./command-list.js";
import { element, setText } from "./element.js";
import { Note } from "./note.js";
import { Poller } from "./poller.js";
import { visible } from "./text.js";

const SHOWN = 20;
const QUICKEST = 250;
const SLOWEST = 2000;

/** Send a command to a device, and watch what becomes of it and of those before it. */
class CommandBox extends HTMLElement {
  #device = "";
  #sent = null; // the id of the command that was sent from here last, until its end is told
  #pace = QUICKEST;
  #seen = "";
  #poller = new Poller((signal) => this.#load(signal), (problem) => this.#listNote.ofPoll(problem));
  #deviceInput = element("input", { id: "command-device", required: true, maxlength: "255", autocomplete: "off", spellcheck: "false", dir: "auto", placeholder: "choose in the table, or type", onchange: () => this.#typed() });
  #command = element("input", { id: "command-text", required: true, autocomplete: "off", spellcheck: "false", dir: "auto", placeholder: "read all" });
  #timeout = element("input", { id: "command-timeout", type: "number", required: true, min: "0.1", step: "any", value: "10" });
  #ttl = element("input", { id: "command-ttl", type: "number", required: true, min: "0.1", step: "any", value: "60" });
  #send = element("button", { type: "submit", class: "primary" }, "Send");
  #note = new Note();
  #listNote = new Note();
  #hint = element("p", { class: "empty" }, "Choose a device to see its latest commands.");
  #list = element("ol", { class: "commands" });

  connectedCallback() {
    this.append(
      element("form", { onsubmit: (event) => this.#submit(event) },
        field("Device", this.#deviceInput, "wide"),
        field("Command", this.#command, "wide"),
        field("Reply timeout, s", this.#timeout, "", "How long to wait for the reply once the command is written to the line."),
        field("Time to live, s", this.#ttl, "", "How long the command may wait for the device; after that it expires and is never written."),
        this.#send),
      this.#note.element,
      element("h3", {}, "Latest commands"),
      this.#listNote.element,
      this.#hint,
      this.#list,
    );
  }

  /** Turn to a device. */
  choose(id) {
    // An input drops line breaks from its value: the id is kept aside, and what stands in the box is only its picture.
    this.#deviceInput.value = visible(id);
    if (id === this.#device) return;
    this.#device = id;
    this.#sent = null;
    this.#note.clear();
    this.#listNote.clear();
    showCommands(this.#list, []);
    this.#hint.hidden = Boolean(id);
    this.#pace = QUICKEST;
    this.#poller.restart();
  }

  /** Put the cursor where the command is typed. */
  focusCommand() {
    this.#command.focus();
    this.#command.select();
  }

  #typed() {
    const id = this.#deviceInput.value;
    if (id === visible(this.#device)) return;
    this.dispatchEvent(new CustomEvent("device-chosen", { bubbles: true, detail: { id } }));
  }

  async #submit(event) {
    event.preventDefault();
    this.#typed(); // Enter in the device field submits before its change event
    const device = this.#device;
    const body = { cmd: this.#command.value, timeout: this.#timeout.valueAsNumber, ttl: this.#ttl.valueAsNumber };
    this.#send.disabled = true;
    this.#note.clear();
    try {
      const command = await post(`devices/${part(device)}/commands`, body);
      if (device !== this.#device) return;
      this.#sent = command.id;
      this.#note.good("Accepted; its outcome appears below.");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (device === this.#device) this.#note.problem(error);
    } finally {
      this.#send.disabled = false;
      this.#pace = QUICKEST;
      this.#poller.restart();
    }
  }

  async #load(signal) {
    if (!this.#device) return SLOWEST;
    const { items } = await get(`devices/${part(this.#device)}/commands?limit=${SHOWN}`, { signal });
    showCommands(this.#list, items);
    this.#hint.hidden = items.length > 0;
    setText(this.#hint, "No commands for this device yet. Type one above and press Enter.");
    this.#tellOutcome(items);
    return this.#nextPace(items);
  }

  // Quick while something is under way, slower the longer nothing happens.
  #nextPace(commands) {
    const now = commands.map((command) => command.id + command.state).join();
    this.#pace = now === this.#seen ? Math.min(SLOWEST, this.#pace * 1.2) : QUICKEST;
    this.#seen = now;
    return commands.some(isUnfinished) ? this.#pace : SLOWEST;
  }

  #tellOutcome(commands) {
    const command = commands.find(({ id }) => id === this.#sent);
    if (!command || isUnfinished(command)) return;
    this.#sent = null;
    const reason = command.reason ? `: ${command.reason}` : "";
    if (command.state === "replied") this.#note.good(`Replied after ${timeTaken(command)}.`);
    else this.#note.bad(`Ended as ${command.state}${reason}.`);
  }
}

function field(label, input, className = "", title = null) {
  return element("p", { class: `field ${className}`, title }, element("label", { for: input.id }, label), input);
}

customElements.define("command-box", CommandBox);
