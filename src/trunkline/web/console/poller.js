import { Problem } from "./api.js";
import { link } from "./link.js";

const INTERVAL = 2000;

/**
 * Runs a task again and again: never two at a time, not in a hidden tab, and (unless `evenInSilence`) not while the node is
 * silent; at once when the tab is shown again or the node is back. A task may return the milliseconds until its next run.
 */
export class Poller {
  #task;
  #tell;
  #evenInSilence;
  #timer = 0;
  #running = null;
  #again = false;
  #silentRuns = 0;

  /**
   * @param {function(AbortSignal): Promise<number|void>} task
   * @param {function(?Problem): void} tell called after each run, with what went wrong or null
   * @param {{evenInSilence?: boolean}} [options]
   */
  constructor(task, tell, { evenInSilence = false } = {}) {
    this.#task = task;
    this.#tell = tell;
    this.#evenInSilence = evenInSilence;
    document.addEventListener("visibilitychange", () => this.poke());
    link.addEventListener("change", () => this.poke());
  }

  /** Run now, or once more after the run that is under way. */
  poke() {
    clearTimeout(this.#timer);
    if (this.#running) this.#again = true;
    else if (!document.hidden && (link.answering || this.#evenInSilence)) this.#run();
  }

  /** Run now, and drop the run that is under way: its answer is of no use any more. */
  restart() {
    this.#running?.abort();
    this.#running = null;
    this.poke();
  }

  async #run() {
    const run = (this.#running = new AbortController());
    this.#again = false;
    let delay = INTERVAL;
    let problem = null;
    try {
      delay = (await this.#task(run.signal)) ?? INTERVAL;
    } catch (error) {
      if (!run.signal.aborted && !(error instanceof Problem)) console.error(error);
      problem = error instanceof Problem ? error : new Problem({ detail: "The console failed to show an answer.", next: "Reload the page." });
    }
    if (this.#running !== run) return;
    this.#running = null;
    this.#silentRuns = problem?.silent ? this.#silentRuns + 1 : 0;
    // One run without an answer is the banner's affair; a list that stays mute while the node answers is its panel's.
    this.#tell(this.#silentRuns === 1 && !this.#evenInSilence ? null : problem);
    if (problem?.silent && !this.#evenInSilence) link.doubt();
    if (this.#again) this.poke();
    else this.#timer = setTimeout(() => this.poke(), delay);
  }
}
