// Small parts of which the pages are made.

import { el, show } from "./dom.js";
import { idOf } from "./api.js";
import { countdown } from "./format.js";

/** A section with a heading of its own. */
export function section(title, ...children) {
  const id = `s-${title.toLowerCase().replaceAll(/\W+/g, "-")}`;
  return el("section.card", { "aria-labelledby": id, key: title }, el("h2", { id }, title), ...children);
}

/** Where an identity is, in a word and a colour. */
export function statePill(state) {
  const word = state.toLowerCase();
  return el(`span.pill.state-${word.replaceAll(/\W/g, "")}`, word);
}

/** How long callers still get a token. */
export function starving(seconds) {
  if (seconds === null || seconds === undefined) return null;
  return seconds > 0
    ? el("span.pill.bad", "starves in ", countdown(seconds))
    : el("span.pill.bad", "starved: callers get none");
}

export const identityLink = (name) => el("a.name", { href: `#/identities/${encodeURIComponent(idOf(name))}` }, idOf(name));

/** A link for what is a resource, else its text. */
export function subjectLink(subject) {
  if (subject.startsWith("identities/")) return el("a.name", { href: `#/identities/${encodeURIComponent(idOf(subject))}` }, subject);
  if (subject.startsWith("authorities/")) return el("a.name", { href: "#/authorities" }, subject);
  return el("span.name", subject);
}

/** What helps: a command that can be copied, or words. */
export function remedy(text) {
  if (!text) return null;
  const commands = text.split("\n").filter((line) => line.startsWith("jeton "));
  if (!commands.length) return el("p.remedy", text);
  return text.split("\n").map((line) => (line.startsWith("jeton ") ? command(line) : el("p.remedy", line)));
}

function command(text) {
  const copy = el("button.quiet.copy", { type: "button", "aria-label": `Copy: ${text}`, onclick: () => copied(text) }, "Copy");
  return el("div.command", el("code", text), copy);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not let this page copy. Mark the text instead.", "bad");
  }
}

/** What failed, and what to do. */
export function failure(error) {
  return el("div.failure", { role: "alert" }, el("p", error.message), remedy(error.remedy));
}

export const empty = (text) => el("p.empty", text);

/** Names and values, and how each is laid out; those without a value are left out. */
export function facts(...pairs) {
  const there = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–");
  return el("dl.facts", there.map(([name, value, kind]) => el(`div${kind ? `.${kind}` : ""}`, el("dt", name), el("dd", value))));
}

/** Says something in passing. */
export function toast(text, kind = "good") {
  const shown = el(`p.toast.${kind}`, text);
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

/** A <select> with its label, made once: it keeps its state. `options`: [value, text]. */
export function select(label, options, onchange) {
  const control = el("select", { onchange: () => onchange(control.value) });
  const labelled = el("label.field", el("span", label), control);
  const offer = (all, value) => {
    show(control, all.map(([key, text]) => el("option", { value: key, key }, text)));
    control.value = value;
  };
  offer(options, options[0][0]);
  return { node: labelled, control, offer };
}
