import { part, post, Problem } from "./api.js";
import { element, setAttribute, setText } from "./element.js";
import { isFinal } from "./job-stream.js";
import "./job-log.js";
import { Note } from "./note.js";
import { count, showText } from "./text.js";
import { showAge } from "./times.js";
import { showState, stateChip } from "./words.js";

const MOST_OPEN_LOGS = 3; // each holds one of the six connections that a browser grants a site
const openLogs = new Set();

/**
 * One record: sync it, see how far it is, read the log of its latest job. Raises "record-news" when a poll would show news.
 */
export class RecordRow extends HTMLElement {
  #record = null;
  #job = null;
  #log = null;
  #awaited = null; // the id of the job that was started or joined from here, until its end is told
  #title = element("bdi", { class: "record-title" });
  #name = element("bdi", { class: "minor" });
  #synced = element("time");
  #syncedLine = element("span", { class: "minor" });
  #chip = stateChip();
  #bar = element("progress", { hidden: true });
  #progress = element("span", { class: "progress-text minor" });
  #sync = element("button", { type: "button", onclick: () => this.#startSync() }, "Sync up");
  #showLog = element("button", { type: "button", class: "quiet", "aria-expanded": "false", onclick: () => this.#toggleLog() }, "Log");
  #note = new Note();

  connectedCallback() {
    if (this.firstChild) return;
    this.append(
      element("div", { class: "record" },
        element("div", { class: "record-name" }, this.#title, element("span", { class: "record-minor" }, this.#name, this.#syncedLine)),
        element("div", { class: "record-progress" }, this.#chip, this.#bar, this.#progress),
        element("div", { class: "record-buttons" }, this.#sync, this.#showLog)),
      this.#note.element,
    );
    this.addEventListener("job-heard", ({ detail }) => this.#heard(detail));
  }

  disconnectedCallback() {
    if (this.#log) this.#closeLog();
  }

  /** Show what a poll found. */
  show(record) {
    this.#record = record;
    const name = `${record.type}/${record.id}`;
    showText(this.#title, record.title || name);
    showText(this.#name, name);
    setAttribute(this.#sync, "aria-label", `Sync up ${record.title || name}`);
    if (record.synced_at) {
      showAge(this.#synced, record.synced_at);
      if (!this.#synced.isConnected) this.#syncedLine.replaceChildren("synced ", this.#synced);
    } else setText(this.#syncedLine, "never synced");
    this.#takeJob(record.job);
  }

  // An open log is ahead of the polls: of the job that it follows, what it said last counts.
  #takeJob(job) {
    const sameJob = job && this.#job?.id === job.id;
    const older = job && this.#job && !sameJob && Date.parse(job.created_at) < Date.parse(this.#job.created_at);
    if (older) return; // an answer that was under way when the button was pressed
    this.#job = sameJob && this.#log && !isFinal(job.state) ? { ...this.#job, attempt: job.attempt } : job;
    if (!sameJob && job && this.#log) this.#log.follow(job.id);
    this.#showJob();
  }

  #heard({ kind, data }) {
    if (!this.#job || isFinal(this.#job.state)) return; // a finished job's log is only read, its story is over
    if (kind === "progress") this.#job = { ...this.#job, done: data.done, total: data.total };
    else this.#job = { ...this.#job, state: data.state, error: data.error };
    this.#showJob();
    if (kind === "state") this.dispatchEvent(new Event("record-news", { bubbles: true }));
  }

  #showJob() {
    const job = this.#job;
    this.#chip.hidden = !job;
    this.#bar.hidden = !job;
    this.#progress.hidden = !job;
    this.#showLog.hidden = !job && !this.#log;
    if (!job) return;
    showState(this.#chip, job.state);
    setAttribute(this.#bar, "data-state", job.state);
    setAttribute(this.#bar, "aria-label", `Progress of ${this.#record.type}/${this.#record.id}`);
    const known = job.total > 0;
    const done = job.done ?? 0;
    setAttribute(this.#bar, "max", known ? job.total : 1);
    // Without a value the bar says "under way, length unknown"; a job that waits or is over must not.
    setAttribute(this.#bar, "value", known ? Math.min(done, job.total) : job.state === "running" ? null : Number(job.state === "succeeded"));
    const share = known ? `${count(done)} / ${count(job.total)} · ${Math.floor((100 * done) / job.total)} %` : `${count(done)} done`;
    const attempt = job.attempt > 1 ? ` · attempt ${job.attempt}` : "";
    const error = job.state === "failed" && job.error ? ` · ${job.error}` : "";
    showText(this.#progress, share + attempt + error);
    this.#tellOutcome(job);
  }

  #tellOutcome({ id, state, error }) {
    if (id !== this.#awaited || !isFinal(state)) return;
    this.#awaited = null;
    if (state === "succeeded") this.#note.good("Synced.");
    else this.#note.bad(`The sync failed: ${error ?? "no reason was recorded"}. Its log says more.`);
  }

  async #startSync() {
    try {
      const { job, joined } = await post(`records/${part(this.#record.type)}/${part(this.#record.id)}/sync`);
      this.#awaited = job.id;
      this.#note.good(joined ? "Joined the running job." : "Started a job.");
      this.#takeJob(job);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#note.problem(error);
    }
    this.dispatchEvent(new Event("record-news", { bubbles: true }));
  }

  #toggleLog() {
    if (this.#log) this.#closeLog();
    else this.#openLog();
  }

  #openLog() {
    if (openLogs.size >= MOST_OPEN_LOGS) {
      const oldest = openLogs.values().next().value;
      oldest.#closeLog();
      oldest.#note.good(`Its log was closed: at most ${MOST_OPEN_LOGS} are open at a time.`);
    }
    openLogs.add(this);
    this.#log = element("job-log");
    this.append(this.#log);
    this.#log.follow(this.#job.id);
    setAttribute(this.#showLog, "aria-expanded", "true");
  }

  #closeLog() {
    openLogs.delete(this);
    this.#log.remove();
    this.#log = null;
    setAttribute(this.#showLog, "aria-expanded", "false");
  }
}

customElements.define("record-row", RecordRow);
