// Events, as one identity's story or as everybody's.

import { el } from "./dom.js";
import { clock, relative } from "./format.js";
import { subjectLink } from "./parts.js";

/** One event. Where the page is about its identity already, that is not said again. */
export function eventLine({ id, time, kind, severity, identity, authority, message, correlation_id: correlation }, { alone = false } = {}) {
  const about = alone ? null : [identity, authority].filter(Boolean).map((name) => [subjectLink(name), " "]);
  return el(`li.event.${severity}`, { key: `${id} ${time} ${kind}` }, [
    el("div.when", relative(time), el("span.clock", clock(time))),
    el("div.what", [
      el("p.subject", el(`span.pill.${severity}`, kind.replaceAll("_", " ")), " ", about),
      el("p.message", message),
      correlation && el("p.fine", "correlation ", el("code", correlation)),
    ]),
  ]);
}

export const eventList = (events, options) => el("ol.events", events.map((event) => eventLine(event, options)));
