// What needs attention: how long it may still wait, why, and what to do.

import { el } from "./dom.js";
import { countdown, plural } from "./format.js";
import { remedy, subjectLink } from "./parts.js";

const AT_ONCE = 8;

/** The list of them, the worst first, as the broker orders them. */
export function problemList(problems) {
  if (!problems.length) return el("p.calm", el("strong", "Healthy."), " Nothing needs attention.");
  const all = numbered(problems).map(problem);
  const more = all.slice(AT_ONCE);
  return [
    el("ol.problems", { "aria-label": plural(all.length, "problem", "problems"), key: "problems" }, all.slice(0, AT_ONCE)),
    more.length > 0 && el("details", { key: "more problems" }, el("summary", plural(more.length, "more problem", "more problems")), el("ol.problems", more)),
  ];
}

/** The same subject may be there twice, for two targets. */
function numbered(problems) {
  const seen = new Map();
  return problems.map((each) => {
    const n = seen.get(each.subject) ?? 0;
    seen.set(each.subject, n + 1);
    return { ...each, key: `${each.subject} ${n}` };
  });
}

export function problem({ subject, message, remedy: helps, starves_in_seconds: left, key }) {
  const urgent = left !== null && left !== undefined;
  return el(`li.problem${urgent ? ".urgent" : ""}`, { key }, el("div.left", urgent ? time(left) : el("span.what", "attention")), [
    el("div.why", el("p.subject", subjectLink(subject)), el("p.message", message), remedy(helps)),
  ]);
}

function time(left) {
  if (left <= 0) return [el("strong", "starved"), el("span.what", "callers get no token")];
  return [el("strong", countdown(left)), el("span.what", "until callers get no token")];
}
