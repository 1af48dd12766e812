import { apiUrl, part } from "./api.js";

const RETRY = 3000;

/** Whether a job is over. */
export function isFinal(state) {
  return state === "succeeded" || state === "failed";
}

/**
 * A job's events, in order and each once, until its end. While the tab is hidden the stream is closed, since a browser grants a
 * site six connections over all its tabs; opened again, it is replayed, and what was seen before is skipped.
 */
export class JobStream {
  #url;
  #hear;
  #source = null;
  #timer = 0;
  #lastSeen = 0;
  #ended = false;

  /**
   * @param {string} jobId
   * @param {function(string, Object): void} hear called with "log", "progress" or "state" and the event's data, and with
   *   "link" and {open: boolean} when the stream opens or breaks
   */
  constructor(jobId, hear) {
    this.#url = apiUrl(`jobs/${part(jobId)}/events`);
    this.#hear = hear;
    document.addEventListener("visibilitychange", this.#turnVisible);
    this.#open();
  }

  /** Stop for good. */
  close() {
    this.#ended = true;
    document.removeEventListener("visibilitychange", this.#turnVisible);
    this.#drop();
  }

  #turnVisible = () => {
    if (document.hidden) this.#drop();
    else if (!this.#source) this.#open();
  };

  #drop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #open() {
    if (this.#ended || document.hidden) return;
    const source = (this.#source = new EventSource(this.#url));
    source.onopen = () => this.#hear("link", { open: true });
    source.onerror = () => this.#broken(source);
    for (const kind of ["log", "progress", "state"]) source.addEventListener(kind, (event) => this.#received(kind, event));
  }

  #received(kind, event) {
    const data = JSON.parse(event.data);
    if (data.n <= this.#lastSeen) return;
    this.#lastSeen = data.n;
    if (kind === "state" && isFinal(data.state)) this.close();
    this.#hear(kind, data);
  }

  // A dropped connection is taken up again by the browser, an answer that is no stream (an error, 204) is not.
  #broken(source) {
    if (this.#ended) return;
    this.#hear("link", { open: false });
    if (source.readyState !== EventSource.CLOSED) return;
    this.#drop();
    this.#timer = setTimeout(() => this.#open(), RETRY);
  }
}
