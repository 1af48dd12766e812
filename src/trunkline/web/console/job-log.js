import { element, setText } from "./element.js";
import { JobStream, isFinal } from "./job-stream.js";
import { counted, outsideText } from "./text.js";
import { localTime, timeOfDay } from "./times.js";

const MOST_LINES = 2000;
const FLUSH_EVERY = 100;
const CLOSE_TO_END = 8; // pixels: fractions of zoomed pixels must not stop the following

/** The live log of one job. Raises "job-heard" with {kind, data} for progress and state events. */
class JobLog extends HTMLElement {
  #stream = null;
  #pending = [];
  #timer = 0;
  #leftOut = 0;
  #unread = 0;
  #title = element("span", { class: "minor" });
  #left = element("span", { class: "minor" });
  #link = element("span", { class: "minor" });
  #jump = element("button", { type: "button", hidden: true, onclick: () => this.#toEnd() });
  #lines = element("ol", { class: "lines", role: "log", "aria-live": "off", tabindex: "0", onscroll: () => this.#scrolled() });

  connectedCallback() {
    if (this.firstChild) return;
    this.append(element("div", { class: "log-head" }, this.#title, this.#link, this.#left, this.#jump), this.#lines);
  }

  disconnectedCallback() {
    this.stop();
  }

  /** Follow a job from its first line. */
  follow(jobId) {
    this.stop();
    this.#pending = [];
    this.#leftOut = this.#unread = 0;
    this.#lines.replaceChildren();
    this.#lines.setAttribute("aria-label", `Log of job ${jobId}`);
    this.#title.replaceChildren("job ", outsideText(jobId));
    this.#title.title = "Each line has its number in the job's logbook; steps of progress take a number too.";
    setText(this.#link, "opening …");
    this.#stream = new JobStream(jobId, (kind, data) => this.#hear(kind, data));
    this.#showCounts();
  }

  /** Close the stream; the lines stay. */
  stop() {
    this.#stream?.close();
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #hear(kind, data) {
    if (kind === "link") {
      setText(this.#link, data.open ? "live" : "the stream broke off; trying again");
      return;
    }
    if (kind === "log") this.#pending.push(data);
    if (kind === "state" && isFinal(data.state)) setText(this.#link, "complete");
    if (kind === "state") this.#pending.push({ ...data, level: "state", text: data.error ? `${data.state}: ${data.error}` : data.state });
    if (this.#pending.length > 2 * MOST_LINES) this.#leaveOut(this.#pending.splice(0, this.#pending.length - MOST_LINES).length);
    if (kind !== "log") this.dispatchEvent(new CustomEvent("job-heard", { bubbles: true, detail: { kind, data } }));
    // A job may log thousands of lines a second: they enter the page together, ten times a second.
    this.#timer ||= setTimeout(() => this.#flush(), FLUSH_EVERY);
  }

  #flush() {
    this.#timer = 0;
    const following = this.#atEnd();
    const lines = this.#pending.splice(0);
    if (lines.length > MOST_LINES) this.#leaveOut(lines.splice(0, lines.length - MOST_LINES).length);
    this.#lines.append(...lines.map(makeLine));
    const over = this.#lines.childElementCount - MOST_LINES;
    for (let i = 0; i < over; i += 1) this.#lines.firstElementChild.remove();
    if (over > 0) this.#leaveOut(over);
    if (following) this.#toEnd();
    else this.#unread += lines.length;
    this.#showCounts();
  }

  #leaveOut(lines) {
    this.#leftOut += lines;
  }

  #showCounts() {
    setText(this.#left, this.#leftOut ? `${counted(this.#leftOut, "earlier line")} left out here` : "");
    this.#jump.hidden = this.#unread === 0;
    setText(this.#jump, `${counted(this.#unread, "new line")} ↓`);
  }

  #atEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.#lines;
    return scrollTop + clientHeight >= scrollHeight - CLOSE_TO_END;
  }

  #toEnd() {
    this.#lines.scrollTop = this.#lines.scrollHeight;
    this.#unread = 0;
    this.#showCounts();
  }

  #scrolled() {
    if (this.#unread && this.#atEnd()) {
      this.#unread = 0;
      this.#showCounts();
    }
  }
}

function makeLine({ n, at, level, text }) {
  const time = element("time", { datetime: at, title: localTime(at) }, timeOfDay(at, true));
  return element("li", { "data-level": String(level).toLowerCase() },
    element("span", { class: "number" }, String(n)), time, outsideText(level, "level"), outsideText(text, "text"));
}

customElements.define("job-log", JobLog);
