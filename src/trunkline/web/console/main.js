// The console: each panel is a custom element that loads and refreshes itself. Here they are joined.
import "./status-bar.js";
import "./device-table.js";
import "./command-box.js";
import "./record-list.js";
import "./storage-panel.js";
import { startAges } from "./times.js";

const table = document.querySelector("device-table");
const box = document.querySelector("command-box");

/** The chosen device stands in the address, so that a reload or a link keeps it. */
function deviceInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("device") ?? "";
}

function choose(id) {
  table.markChosen(id);
  box.choose(id);
  history.replaceState(null, "", id ? `#${new URLSearchParams({ device: id })}` : location.pathname + location.search);
}

document.addEventListener("device-chosen", (event) => {
  choose(event.detail.id);
  if (event.detail.write) box.focusCommand();
});
addEventListener("hashchange", () => {
  const id = deviceInAddress();
  if (id) choose(id);
});

startAges();
if (deviceInAddress()) choose(deviceInAddress());
