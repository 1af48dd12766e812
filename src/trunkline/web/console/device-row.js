import { element, setAttribute } from "./element.js";
import { showText, visible } from "./text.js";
import { localTime, showAge } from "./times.js";
import { offlineReason, showState, stateChip } from "./words.js";

const PARTS = new WeakMap();

// The roles are said out loud, since on a narrow screen the cells are laid out as a grid, which drops the table's own.
const cell = (name, ...children) => element("td", { role: "cell", class: name }, ...children);

/**
 * One row of the device table. Its id is a button: that is what the keyboard reaches.
 * @returns {HTMLTableRowElement}
 */
export function makeDeviceRow() {
  const parts = {
    id: element("bdi"),
    profile: element("bdi", { class: "minor" }),
    chip: stateChip(),
    why: element("bdi", { class: "minor why" }),
    address: element("bdi"),
    lastSeen: element("time"),
    firstSeen: element("time"),
  };
  parts.button = element("button", { type: "button", class: "row-button", tabindex: "-1" }, parts.id);
  const row = element("tr", { role: "row" },
    cell("id", element("div", { class: "id-line" }, parts.button, parts.profile)),
    cell("state", parts.chip, parts.why),
    cell("address", parts.address),
    cell("last-seen", parts.lastSeen),
    cell("first-seen", parts.firstSeen),
  );
  PARTS.set(row, parts);
  return row;
}

/** Bring a row up to date. */
export function showDevice(row, device, chosen) {
  const parts = PARTS.get(row);
  row.dataset.id = device.id;
  row.classList.toggle("chosen", chosen);
  setAttribute(parts.button, "aria-pressed", String(chosen));
  setAttribute(parts.button, "title", visible(device.id));
  showText(parts.id, device.id);
  showText(parts.profile, device.profile ?? "");
  showState(parts.chip, device.online ? "online" : "offline");
  const [words, explanation] = device.online ? ["", ""] : offlineReason(device.offline_reason);
  showText(parts.why, words);
  setAttribute(parts.why.parentElement, "title", stateTitle(device, explanation));
  showText(parts.address, device.address ?? "–");
  setAttribute(parts.address, "title", device.address ? visible(device.address) : null);
  showAge(parts.lastSeen, device.last_seen_at);
  showAge(parts.firstSeen, device.first_seen_at);
}

function stateTitle(device, explanation) {
  const since = device.online ? device.online_since : device.offline_since;
  const began = since ? `${device.online ? "Online" : "Offline"} since ${localTime(since)}` : "";
  const node = device.node ? `${device.online ? "On" : "Last on"} node ${visible(device.node)}` : "";
  return [explanation, began, node].filter(Boolean).join("\n") || null;
}

/** The text that the filter looks in: everything that the row says. */
export function searchable(device) {
  const state = device.online ? "online" : `offline ${offlineReason(device.offline_reason)[0]} ${device.offline_reason ?? ""}`;
  return [device.id, visible(device.id), device.profile, device.address, device.node, state].join("\n").toLowerCase();
}
