// Where tokens come from, and whether they come.

import { get } from "./api.js";
import { el, show } from "./dom.js";
import { count, countdown, figure } from "./format.js";
import { empty, facts, failure, remedy } from "./parts.js";
import { poll } from "./poll.js";

export const title = "Authorities";

export function open(place, { signal }) {
  const list = el("div.stack", empty("Loading…"));
  show(place, el("h1", title), list);
  poll(() => 5, signal, async () => {
    const { authorities } = await get("/api/authorities", { signal });
    show(list, authorities.length ? authorities.map(authority) : empty("There is none yet."));
  }, (error) => show(list, failure(error)));
}

function authority(each) {
  const { name, failing_refreshes: failing, starves_in_seconds: starves, retry_after_seconds: held } = each;
  const id = `a-${name.replaceAll(/\W/g, "-")}`;
  const wrong = failing > 0 || held || each.last_error;
  return el("section.card", { key: name, "aria-labelledby": id }, [
    el("div.head", el("h2", { id }, name), el(`span.pill.${wrong ? "bad" : "good"}`, wrong ? "needs attention" : "well")),
    each.last_error && el("p.error", each.last_error),
    wrong && remedy(`jeton authority test ${name}`),
    facts(
      ["Identities", el("a", { href: `#/identities?authority=${encodeURIComponent(name)}` }, count(each.identities))],
      ["Failing refreshes", failing ? el("span.error", count(failing)) : "0"],
      ["Callers starve in", starves !== null && starves !== undefined ? countdown(starves) : null],
      ["Retry-After", held ? [countdown(held), ` · ${count(each.held_identities)} identities held`] : null],
      ["Budget", `${figure(each.requests_per_second)} requests/s`],
      ["In flight", count(each.in_flight)],
      ["Profile", each.profile],
      ["Issuer or endpoint", each.issuer_or_endpoint && el("code", each.issuer_or_endpoint)],
      ["Registrar", each.registrar],
    ),
  ]);
}
