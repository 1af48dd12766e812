// Text from devices is hostile until shown otherwise: it may hide, reorder or imitate what stands around it.

// Controls, invisible format characters (bidi overrides, zero widths, tags), lone surrogates, private use, line and
// paragraph separators, and the few letters that are drawn as nothing.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]/gu;
const SHORT_NAMES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const MOST_CHARACTERS = 4000;
const LAST_SHOWN = new WeakMap();

function escapeOne(character) {
  if (character in SHORT_NAMES) return SHORT_NAMES[character];
  const hex = character.codePointAt(0).toString(16);
  if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`;
  return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\u{${hex}}`;
}

/** The text with every invisible or reordering character written out, as a plain string (for titles). */
export function visible(text) {
  return String(text).replace(HIDDEN, escapeOne);
}

/**
 * Show text from outside in `node`: as text, its direction isolated, escapes set apart by a style, so that a device that
 * sends the four characters \x1b cannot be taken for one that sends ESC. Very long text is cut, and says so.
 * @param {HTMLElement} node
 * @param {*} raw
 * @param {number} [most] characters shown
 */
export function showText(node, raw, most = MOST_CHARACTERS) {
  const text = String(raw);
  if (LAST_SHOWN.get(node) === text) return;
  LAST_SHOWN.set(node, text);
  node.dir = "auto";
  node.replaceChildren(...pieces(text.slice(0, most)));
  if (text.length > most) node.append(mark("cut", ` … ${count(text.length - most)} more characters`));
}

/** A `<bdi>` that shows text from outside. */
export function outsideText(raw, className = "") {
  const node = document.createElement("bdi");
  if (className) node.className = className;
  showText(node, raw);
  return node;
}

function* pieces(text) {
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) yield text.slice(end, match.index);
    yield mark("escape", escapeOne(match[0]));
    end = match.index + match[0].length;
  }
  if (end < text.length) yield text.slice(end);
}

function mark(className, text) {
  const node = document.createElement("span");
  node.className = className;
  node.dir = "ltr";
  node.textContent = text;
  return node;
}

const GROUPED = new Intl.NumberFormat("en");

/** A number with grouped thousands: 12,345. */
export function count(number) {
  return typeof number === "number" ? GROUPED.format(number) : "–";
}

/** A count with its noun: "1 item", "12 items". */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
