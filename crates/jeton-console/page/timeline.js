// Events, as one identity's story or as everybody's.

import { el } from "./dom.js";
import { clock, relative } from "./format.js";
import { subjectLink } from "./parts.js";

/** One event. Where the page is about its identity already, that is not said again; `times` and `since` tell of the same before it. */
export function eventLine(event, { alone = false } = {}) {
  const { id, time, kind, severity, identity, authority, message, correlation_id: correlation, times, since } = event;
  const about = alone ? null : [identity, authority].filter(Boolean).map((name) => [subjectLink(name), " "]);
  return el(`li.event.${severity}`, { key: `${id} ${since ?? time} ${kind}` }, [
    el("div.when", relative(time), el("span.clock", clock(time))),
    el("div.what", [
      el("p.subject", el(`span.pill.${severity}`, kind.replaceAll("_", " ")), " ", about),
      el("p.message", message),
      times > 1 && el("p.fine", `${times} times since ${clock(since)}`),
      correlation && el("p.fine", "correlation ", el("code", correlation)),
    ]),
  ]);
}

/** The life of one identity, the latest first: what happens again and again is said once. */
export const lifeOf = (events) => el("ol.events", folded(events).map((event) => eventLine(event, { alone: true })));

function folded(events) {
  const lines = [];
  for (const event of events) {
    const later = lines.at(-1);
    if (later?.kind === event.kind && later.message === event.message) {
      // The oldest gives the line its place: it is the same one when another is added.
      Object.assign(later, { id: event.id, since: event.time, times: later.times + 1 });
    } else {
      lines.push({ ...event, since: event.time, times: 1 });
    }
  }
  return lines;
}
