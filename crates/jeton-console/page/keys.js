// What the keyboard does beyond Tab and Enter.

import { el } from "./dom.js";

const PAGES = { o: "#/", i: "#/identities", a: "#/authorities", e: "#/events", x: "#/explain" };
const KEYS = [
  ["/", "search"],
  ["g then o, i, a, e, x", "go to Overview, Identities, Authorities, Events, Explain"],
  ["j, k", "next and previous row; Enter leads from the search to the first"],
  ["Enter", "open it"],
  ["Esc", "leave a dialog"],
  ["?", "this list"],
];
const AFTER_G_MS = 1500;

let goneAt = 0;

export function listen() {
  document.addEventListener("keydown", pressed);
  document.getElementById("keys").onclick = explainKeys;
}

function pressed(event) {
  if (event.target.matches?.("main input[type=search]") && ["Enter", "ArrowDown"].includes(event.key)) step(1);
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Date.now() - goneAt < AFTER_G_MS ? PAGES[event.key] : undefined;
  goneAt = event.key === "g" ? Date.now() : 0;
  if (page) location.hash = page;
  else if (event.key === "/") search();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "?") explainKeys();
  else return;
  event.preventDefault();
}

/** The page's search, or that of the identities. */
function search() {
  const field = document.querySelector("main input[type=search]");
  if (field) field.focus();
  else location.hash = "#/identities?focus=search";
}

function step(by) {
  const links = [...document.querySelectorAll("main tbody tr a.name, main .problem a.name, main .events a.name")];
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

function explainKeys() {
  const rows = KEYS.map(([key, does]) => el("div", el("dt", el("kbd", key)), el("dd", does)));
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const title = el("h2", { id: "keys-title" }, "Keyboard");
  const dialog = el("dialog", { "aria-labelledby": "keys-title" }, title, el("dl.facts", rows), el("div.actions", close));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
