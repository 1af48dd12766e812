// Moments and durations in words. Ages are counted on the node's clock: the operator's may be minutes off.
import { setAttribute, setText } from "./element.js";

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TRUSTED_SKEW = 3 * SECOND; // the Date header counts whole seconds: less than this is noise
let skew = 0;

/** Learn the node's clock from an answer's Date header. */
export function noteNodeClock(dateHeader) {
  const there = Date.parse(dateHeader ?? "");
  if (Number.isNaN(there)) return;
  const difference = there + 500 - Date.now();
  skew = Math.abs(difference) > TRUSTED_SKEW ? difference : 0;
}

/** The present moment by the node's clock, as the API writes moments. */
export function nodeTime() {
  return new Date(Date.now() + skew).toISOString();
}

/** A duration in milliseconds, in words: "12 ms", "1.24 s", "3 min 20 s", "5 h 12 min", "12 d". */
export function duration(ms) {
  if (ms < SECOND) return `${Math.round(ms)} ms`;
  if (ms < 10 * SECOND) return `${(ms / SECOND).toFixed(2)} s`;
  if (ms < MINUTE) return `${(ms / SECOND).toFixed(1)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min ${Math.floor((ms % MINUTE) / SECOND)} s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h ${Math.floor((ms % HOUR) / MINUTE)} min`;
  return `${Math.floor(ms / DAY)} d`;
}

/** From one ISO moment to another, in words; empty when either is missing. */
export function between(from, to) {
  const ms = Date.parse(to) - Date.parse(from);
  return Number.isNaN(ms) ? "" : duration(Math.max(0, ms));
}

function ago(moment) {
  const ms = Date.now() + skew - moment;
  if (ms < -SECOND) return `in ${coarse(-ms)}`;
  return ms < 2 * SECOND ? "just now" : `${coarse(ms)} ago`;
}

function coarse(ms) {
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < 2 * DAY) return `${Math.floor(ms / HOUR)} h`;
  return `${Math.floor(ms / DAY)} d`;
}

const two = (number) => String(number).padStart(2, "0");

/** The local time of day, "14:03:07", or with its milliseconds, "14:03:07.123". */
export function timeOfDay(iso, withMilliseconds = false) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return "–";
  const seconds = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return withMilliseconds ? `${seconds}.${String(at.getMilliseconds()).padStart(3, "0")}` : seconds;
}

/** The full local time with its offset, the same in every locale: "2026-11-21 14:03:07.123 UTC+01:00". */
export function localTime(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return "";
  const minutes = -at.getTimezoneOffset();
  const offset = `${minutes < 0 ? "-" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${timeOfDay(iso, true)} UTC${offset}`;
}

/** Make `node` (a `<time>`) say how long ago `iso` was, and keep saying it right; a dash when there is no moment. */
export function showAge(node, iso) {
  const moment = Date.parse(iso ?? "");
  if (Number.isNaN(moment)) {
    for (const name of ["datetime", "title", "data-moment"]) node.removeAttribute(name);
    setText(node, "–");
    return;
  }
  if (node.dataset.moment !== String(moment)) {
    setAttribute(node, "datetime", iso);
    node.title = localTime(iso);
    node.dataset.moment = String(moment);
  }
  setText(node, ago(moment));
}

/** Keep every age on the page true, also while the node is silent. Called once. */
export function startAges() {
  setInterval(() => {
    if (document.hidden) return;
    for (const node of document.querySelectorAll("time[data-moment]")) setText(node, ago(Number(node.dataset.moment)));
  }, SECOND);
}
