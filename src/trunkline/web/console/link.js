import { nodeTime } from "./times.js";

/** Whether the node answers. The status bar decides it; everything else listens ("change") or raises a doubt ("doubt"). */
class Link extends EventTarget {
  answering = true;
  silentSince = null;

  /** The status poll had an answer, or had none. */
  report(answering) {
    if (answering === this.answering) return;
    this.answering = answering;
    this.silentSince = answering ? null : nodeTime();
    this.dispatchEvent(new Event("change"));
  }

  /** Another request had no answer: have the status asked for at once, instead of guessing from one failure. */
  doubt() {
    this.dispatchEvent(new Event("doubt"));
  }
}

export const link = new Link();
