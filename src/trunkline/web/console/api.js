// Requests to the node: a timeout on each, and one kind of error for all that can go wrong.
import { noteNodeClock } from "./times.js";

const BASE = new URL("api/v1/", document.baseURI);
const READ_TIMEOUT = 5000;
const WRITE_TIMEOUT = 10000;

/** What went wrong with a request: `detail` says what, `next` what to do, `silent` that no answer came at all. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail, next = "", silent = false }) {
    super(detail);
    Object.assign(this, { status, title, detail, next, silent });
  }
}

/**
 * The absolute URL of an API path, for an EventSource.
 * @param {string} path relative to api/v1/, its parts already encoded (see `part`)
 */
export function apiUrl(path) {
  return new URL(path, BASE).href;
}

/** One path segment: any text, slashes too. The URL parser would resolve "." and ".." even when percent-encoded. */
export function part(text) {
  if (text === "." || text === "..") {
    throw new Problem({ detail: `"${text}" cannot stand in an address.`, next: "Use the API with another client for it." });
  }
  return encodeURIComponent(text.toWellFormed?.() ?? text);
}

/**
 * GET a path. `exact` keeps each number's digits as the node wrote them (see `exactNumbers`).
 * @returns {Promise<*>} the parsed answer
 * @throws {Problem}
 */
export function get(path, { signal, exact = false } = {}) {
  return request(path, { signal, exact, timeout: READ_TIMEOUT });
}

/**
 * POST JSON. A string is sent as it is (so that big numbers typed by hand keep their digits).
 * @returns {Promise<*>} the parsed answer
 * @throws {Problem}
 */
export function post(path, body) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body ?? {}),
    timeout: WRITE_TIMEOUT,
  });
}

async function request(path, { timeout, signal, exact = false, ...options }) {
  const limit = AbortSignal.timeout(timeout);
  const signals = signal ? AbortSignal.any([signal, limit]) : limit;
  let response, text;
  try {
    response = await fetch(apiUrl(path), { cache: "no-store", ...options, signal: signals });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw silence(limit.aborted ? `no answer within ${timeout / 1000} s` : "the connection failed", options.method);
  }
  noteNodeClock(response.headers.get("Date"));
  const answer = parse(text, exact);
  if (response.ok && answer !== undefined) return answer;
  // A proxy in front answers these for a node that does not, and a node that is full without a detail.
  if ([502, 503, 504].includes(response.status) && !answer?.detail) throw silence(`${response.status} came back`, options.method);
  throw new Problem({
    status: response.status,
    title: answer?.title ?? "",
    detail: describe(answer?.detail) ?? `The answer (${response.status}) was not what an API of Trunkline says.`,
    next: answer?.next ?? "Look at the node's log; reload this page if the node was updated.",
  });
}

function silence(how, method) {
  return new Problem({
    silent: true,
    detail: `The node does not answer (${how}).`,
    // Without an answer nobody knows whether the node got it: never invite a blind repeat.
    next: method ? "It may have been accepted all the same: look at the list before you send it again." : "It is tried again by itself.",
  });
}

function describe(detail) {
  if (detail === undefined || detail === null) return null;
  return typeof detail === "string" ? detail : JSON.stringify(detail);
}

function parse(text, exact) {
  try {
    return text === "" ? null : JSON.parse(text, exact ? exactNumbers : undefined);
  } catch {
    return undefined;
  }
}

/** A JSON reviver: 12345678901234567890 and 1.0 stay as written, where the browser can do it, instead of being rounded. */
function exactNumbers(key, value, context) {
  if (typeof value !== "number" || !context?.source || !JSON.rawJSON) return value;
  return String(value) === context.source ? value : JSON.rawJSON(context.source);
}
