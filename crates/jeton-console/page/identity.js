// One identity: whether it is well, what proves it, what it holds, who may use it, and what happened to it.

import { get, identityPath } from "./api.js";
import { buttons } from "./actions.js";
import { el, show } from "./dom.js";
import { age, count, relative } from "./format.js";
import { empty, facts, failure, remedy, section, starving, statePill } from "./parts.js";
import { poll } from "./poll.js";
import { problemList } from "./problems.js";
import { follow } from "./pulse.js";
import { table } from "./table.js";
import { lifeOf } from "./timeline.js";

export const title = "Identity";

const STEPS = ["key_made", "registered", "verified", "switched", "overlapped", "removed"];

export function open(place, { id, me, signal, named }) {
  const name = `identities/${id}`;
  named(id);
  const head = el("div.head", el("h1", id));
  const problems = el("div");
  const body = el("div.stack", empty("Loading…"));
  const crumbs = el("nav", { "aria-label": "Where this is" }, el("ol.crumbs", el("li", el("a", { href: "#/identities" }, "Identities")), el("li", id)));
  show(place, crumbs, head, problems, body);

  const failed = (error) => {
    show(problems);
    show(body, failure(error));
  };
  const again = poll(() => 3, signal, async () => {
    const identity = await get(identityPath(name), { signal });
    const tools = el("div.actions", buttons(identity, me.may, () => again()));
    show(head, el("h1", id), statePill(identity.state), starving(identity.starves_in_seconds), tools);
    show(body, drawn(identity));
  }, failed);
  follow(signal, (now) => {
    const mine = now.problems.filter(({ subject }) => subject === name);
    show(problems, mine.length > 0 && problemList(mine));
  });
}

function drawn(identity) {
  return el("div.sides", [
    el("div.stack", [
      identity.operation && operation(identity.operation),
      section("About", about(identity)),
      section("Credentials", credentials(identity.credentials)),
      section("Tokens in memory", tokens(identity.tokens_in_memory)),
      section("Role assignments", assignments(identity)),
    ]),
    section("Timeline", timeline(identity.timeline)),
  ]);
}

function about(identity) {
  const labels = Object.entries(identity.labels ?? {}).map(([key, value]) => el("span.label", `${key}=${value}`));
  return facts(
    ["Display name", identity.display_name],
    ["Client id", identity.client_id && el("code", identity.client_id)],
    ["Authority", el("a", { href: "#/authorities" }, identity.authority)],
    ["Kind", identity.kind],
    ["Workload", identity.workload],
    ["Next refresh", relative(identity.next_refresh_time)],
    ["Last use", relative(identity.last_use_time)],
    ["Consumers", count(identity.consumers)],
    ["Created", relative(identity.create_time)],
    ["Changed", relative(identity.update_time)],
    ["Labels", labels.length > 0 && labels],
    ["Last error", identity.last_error && el("span.error", identity.last_error), "wide"],
  );
}

function operation({ kind, step, start_time: began, attempts, next_try_time: next, last_error: error }) {
  const at = STEPS.indexOf(step);
  const steps = STEPS.map((name, i) => {
    const mark = i < at ? "done" : i === at ? "now" : "next";
    return el(`li.${mark}`, { "aria-current": i === at ? "step" : null }, name.replaceAll("_", " "));
  });
  return section(
    `Under way: ${kind}`,
    at >= 0 ? el("ol.steps", steps) : el("p", `Step: ${step}`),
    facts(
      ["Began", relative(began)],
      ["Failed tries of this step", attempts ? count(attempts) : null],
      ["Next try", attempts ? relative(next) : null],
      ["Last error", error && el("span.error", error), "wide"],
    ),
  );
}

function credentials(all) {
  if (!all.length) return empty("None yet.");
  return table("Credentials", all, [
    ["State", ({ state }) => statePill(state)],
    ["Kind", ({ kind, algorithm }) => [kind, algorithm && el("span.fine", algorithm)]],
    ["Age", ({ create_time: made }) => age(made)],
    ["Ends", ({ expire_time: ends }) => (ends ? relative(ends) : "never")],
    ["Thumbprint", ({ thumbprint }) => (thumbprint ? el("code", thumbprint) : "–"), "wide"],
  ], ({ thumbprint, create_time: made, state }) => `${thumbprint} ${made} ${state}`);
}

function tokens(all) {
  if (!all.length) return empty("None: nobody has asked for one lately.");
  return table("Tokens in memory", all, [
    ["Target", ({ target, last_error: error }) => [el("span", target), error && el("span.error", error)], "wide"],
    ["State", ({ state, pinned }) => [statePill(state), pinned && el("span.fine", "kept warm")]],
    ["Ends", ({ expires_at: time }) => relative(time)],
    ["Refresh", ({ refresh_at: time }) => relative(time)],
    ["Last use", ({ last_used: time }) => relative(time)],
  ], ({ target }, at) => `${target} ${at}`);
}

function assignments({ name, role_assignments: all }) {
  if (all === null || all === undefined) return empty("Your roles do not let you see role assignments.");
  if (!all.length) return [empty("Nobody may use it. To allow somebody:"), remedy(`jeton access assign --member MEMBER --identity ${name} --target TARGET`)];
  return table("Role assignments", all, [
    ["Member", (each) => [el("span", each.member), el("a.fine", { href: explained(name, each), "aria-label": `Explain ${each.member}` }, "explain")], "wide"],
    ["Role", ({ role }) => role],
    ["On", ({ scope }) => scope],
    ["Targets", ({ targets }) => (targets?.length ? targets.map((target) => el("span", target)) : "–")],
    ["Ends", ({ expire_time: time }) => (time ? relative(time) : "never")],
  ], ({ name: assignment }) => assignment);
}

function explained(identity, { member, targets }) {
  const query = { principal: member, identity, target: targets?.[0] ?? "" };
  return `#/explain?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;
}

const timeline = (events) => (events?.length ? lifeOf(events) : empty("Nothing since the broker's start."));
