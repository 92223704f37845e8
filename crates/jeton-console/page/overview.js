// The first page: what is about to go wrong, why, and what to do; then how much is going on.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { el, show, svg } from "./dom.js";
import { count, countdown, figure, length, percent, relative } from "./format.js";
import { empty, identityLink, section } from "./parts.js";
import { poll } from "./poll.js";
import { problemList } from "./problems.js";
import { follow } from "./pulse.js";
import { table } from "./table.js";

export const title = "Overview";

const CHARTS = [
  ["Look-ups", "a second", [["lookups_per_second", "look-ups"]]],
  ["Misses and denials", "a second", [["misses_per_second", "misses"], ["denied_per_second", "denied"]]],
  ["Refreshes", "a second", [["refreshes_per_second", "refreshes"], ["failed_refreshes_per_second", "failed"]]],
  ["Callers", "now", [["connections", "connections"], ["waiting_callers", "waiting"]]],
];

const STATES = ["active", "provisioning", "failed", "disabled", "deleting"];
const TOKENS = ["fresh", "stale", "expired", "empty"];

export function open(place, { signal }) {
  const charts = CHARTS.map(([name, unit, series]) => chart(name, unit, series, signal));
  const top = el("div.stack", el("p.empty", "Loading…"));
  const drawn = el("div.charts", charts.map(({ node }) => node));
  const below = el("div.stack");
  show(place, el("h1", title), top, drawn, below);
  follow(signal, (now) => draw(top, below, now), 2);
  poll(() => 5, signal, async () => {
    const { points } = await get("/api/history", { signal });
    charts.forEach((each) => each.draw(points));
  });
}

function draw(top, below, now) {
  show(top, problemList(now.problems), figures(now));
  show(
    below,
    el("div.columns", section("Identities", shares(now.identities, STATES, "#/identities?state=")), section("Tokens in memory", shares(now.tokens, TOKENS))),
    section("Authorities", authorities(now.authorities)),
    section("Certificates that end first", certificates(now.certificates)),
    now.suspected_orphans.length > 0 && section("Suspected orphans", orphans(now.suspected_orphans)),
  );
}

function figures({ rates, uptime_seconds: up }) {
  if (!rates) return empty("How much there is to do is counted from a few seconds after the start on, and shown to those who may see everything.");
  const shown = [
    ["look-ups/s", figure(rates.lookups_per_second)],
    ["fresh", percent(rates.fresh_ratio)],
    ["misses/s", figure(rates.misses_per_second)],
    ["denied/s", figure(rates.denied_per_second)],
    ["refreshes/s", figure(rates.refreshes_per_second)],
    ["failed/s", figure(rates.failed_refreshes_per_second), rates.failed_refreshes_per_second > 0],
    ["authority calls/s", figure(rates.authority_calls_per_second)],
    ["waiting callers", count(rates.waiting_callers)],
    ["connections", count(rates.connections)],
    ["up", length(up)],
  ];
  return el("dl.figures", shown.map(([name, value, bad]) => el(`div${bad ? ".bad" : ""}`, el("dt", name), el("dd", value))));
}

/** Numbers by state, as a bar and in words. */
function shares(numbers, order, link) {
  const names = [...order, ...Object.keys(numbers).filter((name) => !order.includes(name))];
  const there = names.map((name) => [name, numbers[name] ?? 0]).filter(([, n]) => n > 0);
  const all = there.reduce((sum, [, n]) => sum + n, 0);
  if (!all) return empty("None.");
  let from = 0;
  const bar = svg("svg.bar", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }, there.map(([name, n]) => {
    const width = (100 * n) / all;
    from += width;
    return svg(`rect.is-${name}`, { x: from - width, width, height: 1 });
  }));
  const words = there.map(([name, n]) => {
    const text = [el(`i.dot.is-${name}`), `${name} `, el("strong", count(n))];
    return el("li", link ? el("a", { href: link + name }, text) : text);
  });
  return [bar, el("ul.legend", words)];
}

function authorities(all) {
  return table("Authorities", all, [
    ["Authority", ({ name }) => el("a.name", { href: "#/authorities" }, name)],
    ["Budget", ({ requests_per_second: n }) => `${figure(n)}/s`, "number"],
    ["In flight", ({ in_flight: n }) => count(n), "number"],
    ["Failing refreshes", ({ failing_refreshes: n }) => (n ? el("span.bad", count(n)) : "0"), "number"],
    ["Callers starve in", ({ starves_in_seconds: left }) => (left === null || left === undefined ? "–" : countdown(left))],
    ["Retry-After", ({ retry_after_seconds: left, held_identities: held }) => (left ? [countdown(left), ` · ${count(held)} held`] : "–")],
  ], ({ name }) => name);
}

function certificates(all) {
  if (!all.length) return empty("No certificates.");
  return table("Certificates that end first", all, [
    ["Identity", ({ identity }) => identityLink(identity)],
    ["Ends", ({ expire_time: time }) => relative(time)],
    ["Rotation", ({ rotating }) => (rotating ? "under way" : "ahead of its end")],
  ], ({ identity }) => identity);
}

function orphans(all) {
  return [
    el("p", "The answer to their registration was lost. Look for them at the authority, and delete there what is not in use."),
    table("Suspected orphans", all, [
      ["Client name", ({ client_name: name }) => name],
      ["Authority", ({ authority }) => authority],
      ["Registered", ({ time }) => relative(time)],
    ], ({ client_name: name, time }) => `${name} ${time}`),
  ];
}
