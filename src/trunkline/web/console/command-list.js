import { element, reconcile, setText } from "./element.js";
import { outsideText, showText } from "./text.js";
import { between, localTime, showAge, timeOfDay } from "./times.js";
import { showState, stateChip } from "./words.js";

const PARTS = new WeakMap();

/** Whether a command may still change its state. */
export function isUnfinished(command) {
  return command.state === "queued" || command.state === "written";
}

/** When the command reached its present state, after how long: "48 ms". */
export function timeTaken(command) {
  return between(command.states[0]?.at, command.states.at(-1)?.at);
}

/**
 * Show commands, newest first.
 * @param {HTMLElement} list an `<ol>`
 * @param {Array} commands
 */
export function showCommands(list, commands) {
  reconcile(list, commands, (command) => command.id, makeItem, update);
}

function makeItem(command) {
  const parts = {
    chip: stateChip(),
    text: outsideText(command.cmd, "command-text"),
    age: element("time", { class: "minor" }),
    outcome: element("div", { class: "outcome" }),
    steps: element("p", { class: "steps minor" }),
  };
  const item = element("li", {}, element("div", { class: "command-head" }, parts.chip, parts.text, parts.age), parts.outcome, parts.steps);
  PARTS.set(item, parts);
  return item;
}

function update(item, command) {
  const { chip, age, outcome, steps } = PARTS.get(item);
  showState(chip, command.state);
  showAge(age, command.states[0]?.at);
  setText(steps, describeSteps(command));
  steps.title = command.states.map(({ state, at }) => `${state}: ${localTime(at)}`).join("\n") + `\ncommand ${command.id}`;
  const said = [["reply", command.reply], ["reason", command.reason], ["late reply", command.late_reply]].filter(([, text]) => text !== null && text !== undefined);
  reconcile(outcome, said, ([name]) => name, makeOutcome, (line, [, text]) => showText(line.lastElementChild, text));
}

function makeOutcome([name]) {
  return element("p", { class: name.replace(" ", "-") }, element("span", { class: "minor" }, name), element("bdi"));
}

/** "queued 14:03:07 → written after 3 ms → replied after 45 ms · written 2 times". */
function describeSteps({ states, writes, state, expires_at: expiresAt, timeout }) {
  const steps = states.map((step, i) => (i === 0 ? `${step.state} ${timeOfDay(step.at)}` : `${step.state} after ${between(states[i - 1].at, step.at)}`));
  const line = steps.join(" → ");
  if (writes > 1) return `${line} · written ${writes} times`;
  if (state === "queued") return `${line} · expires at ${timeOfDay(expiresAt)}`;
  if (state === "written") return `${line} · waits up to ${timeout} s for a reply`;
  return line;
}
