// What the API's words mean, for people. A word that is not listed is shown as it came.
import { setAttribute } from "./element.js";
import { showText, visible } from "./text.js";

const OFFLINE_REASONS = {
  peer_closed: ["the device closed the line", "An orderly close came from the device's side."],
  reset: ["the line was reset", "The network or the device cut the connection without a close."],
  idle: ["silent for too long", "Nothing arrived within the idle limit, not even a heartbeat."],
  handshake_timeout: ["never said who it is", "The line was opened, but no HELLO came in time."],
  bad_frame: ["sent a broken frame", "What arrived could not be cut into messages, so the line was closed."],
  over_budget: ["did not read fast enough", "More bytes waited for the device than its budget allows."],
  taken_over: ["a newer line took over", "The same device connected again; the older line was closed."],
  drained: ["its node was drained", "The node stopped taking work, and sent the device elsewhere."],
  node_lost: ["its node was lost", "The node that held the line stopped renewing its lease."],
  out_of_step: ["replies out of step", "A reply was overdue, so that the next could not be told apart from it; a fresh line is in step."],
  storage_failed: ["the node could not record it", "The database or the disk refused; a fresh line begins from what the ledger says."],
  handler_failed: ["a fault of the node's", "The node failed in handling what the device sent; its log has it."],
  closed: ["closed by the node", "The node or an operator closed the line."],
};

const STATES = {
  online: ["good", "A node holds this device's line."],
  offline: ["idle", "No node holds a line of this device."],
  queued: ["waiting", "Accepted and committed; waits for its turn."],
  written: ["active", "Written to the device's line; no reply yet."],
  replied: ["good", "The device answered."],
  failed: ["bad", "It ended without success; the reason stands beside it."],
  expired: ["idle", "Its time to live ended before it could be written."],
  unknown: ["doubt", "Written, and no reply came: the device may or may not have carried it out."],
  running: ["active", "A worker is at it."],
  succeeded: ["good", "Done."],
  planned: ["waiting", "The batch is cut; its file is not written yet."],
  stored: ["good", "The file is whole and in its place."],
};

/** Why a device is offline: [short words, explanation]. */
export function offlineReason(code) {
  if (!code) return ["no reason was recorded", ""];
  return OFFLINE_REASONS[code] ?? [visible(code), "A reason that this console does not know."];
}

/** A small label for a state: a shape and a word, never colour alone. */
export function stateChip() {
  const chip = document.createElement("span");
  chip.className = "chip";
  return chip;
}

/** Make a chip say `state`. */
export function showState(chip, state) {
  const [tone, meaning] = STATES[state] ?? ["doubt", "A state that this console does not know."];
  chip.dataset.tone = tone;
  setAttribute(chip, "title", meaning);
  showText(chip, state);
}
