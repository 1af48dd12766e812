// A tiny DOM builder. Nothing here parses markup: text only ever becomes a text node.

/**
 * Make an element. A function among the properties listens (`onclick`), `class` and every other string
 * is an attribute, true is an empty attribute; null, undefined and false are left out.
 * @param {string} tag
 * @param {Object<string, *>} [properties]
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else setAttribute(node, name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set, change or (null, undefined, false) remove one attribute; untouched when it is the same already. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Set an element's text, untouched when it is the same: a selection made by the operator survives a poll. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const NODES_BY_KEY = new WeakMap();

/**
 * Make `parent` hold one element per item, in order, and reuse the elements of the last time: focus, scroll
 * position and open logs survive a poll.
 * @param {Element} parent
 * @param {Array} items
 * @param {function(*): string} keyOf
 * @param {function(*): Element} make
 * @param {function(Element, *): void} update called for new elements too
 */
export function reconcile(parent, items, keyOf, make, update) {
  const before = NODES_BY_KEY.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const node = before.get(key) ?? after.get(key) ?? make(item);
    update(node, item);
    after.set(key, node);
  }
  for (const [key, node] of before) if (!after.has(key)) node.remove();
  let place = parent.firstElementChild;
  for (const node of after.values()) {
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  NODES_BY_KEY.set(parent, after);
}
