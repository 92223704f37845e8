// What happens, as it happens.

import { check } from "./api.js";
import { el, show } from "./dom.js";
import { count, plural } from "./format.js";
import { empty, select } from "./parts.js";
import { eventLine } from "./timeline.js";

export const title = "Events";

const MOST = 500;
const DRAWN_EVERY_MS = 250;
const SEVERITIES = [["", "all"], ["warning", "warnings and errors"], ["error", "errors"]];
const RANK = { info: 0, warning: 1, error: 2 };

export function open(place, { query: asked, signal, change }) {
  const state = { events: [], paused: null, missed: 0, query: asked, live: false };
  const severity = select("Severity", SEVERITIES, (value) => change({ severity: value }));
  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Kind, name, message or correlation id" });
  search.oninput = () => change({ q: search.value }, { replace: true });
  const pause = el("button", { type: "button" }, "Pause");
  const status = el("p.status");
  const list = el("div");
  const tools = el("div.toolbar", { role: "search", "aria-label": "Events" }, el("label.field.grow", el("span", "Search"), search), severity.node, pause);
  show(place, el("h1", title), tools, status, list);

  const draw = () => {
    show(status, word(state));
    pause.textContent = state.paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(state.paused !== null));
    const shown = matching(state.paused ?? state.events, state.query);
    show(list, shown.length ? el("ol.card.events", shown.map((event) => eventLine(event))) : empty("Nothing yet. What happens appears here."));
  };
  const say = () => {
    severity.control.value = state.query.severity ?? "";
    if (document.activeElement !== search) search.value = state.query.q ?? "";
    draw();
  };
  pause.onclick = () => {
    state.paused = state.paused ? null : [...state.events];
    draw();
  };
  listen(state, soon(draw, signal), signal);
  say();
  return (query) => {
    state.query = query;
    say();
  };
}

function word({ events, paused, missed, live }) {
  const there = plural(events.length, "event", "events");
  const more = paused ? ` · paused, ${count(newer(events, paused))} more since` : live ? " · live" : " · connecting…";
  return [there, more, missed > 0 && el("span.error", ` · ${count(missed)} were too many to follow`)];
}

function newer(events, paused) {
  const last = events.findIndex(({ id }) => id === paused[0]?.id);
  return last < 0 ? events.length : last;
}

function matching(events, { q = "", severity = "" }) {
  const wanted = q.toLowerCase();
  return events.filter((event) => {
    const text = [event.kind, event.identity, event.authority, event.message, event.correlation_id].join(" ").toLowerCase();
    return RANK[event.severity] >= (RANK[severity] ?? 0) && text.includes(wanted);
  });
}

/** Draws shortly after whatever changes, and once for all that comes together. */
function soon(draw, signal) {
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    timer ||= setTimeout(() => {
      timer = 0;
      draw();
    }, DRAWN_EVERY_MS);
  };
}

function listen(state, changed, signal) {
  const source = new EventSource("/api/events");
  const known = new Set();
  signal.addEventListener("abort", () => source.close());
  source.addEventListener("open", () => {
    state.live = true;
    changed();
  });
  source.addEventListener("event", ({ data }) => {
    const event = JSON.parse(data);
    if (known.has(event.id)) return;
    known.add(event.id);
    state.events.unshift(event);
    state.events.splice(MOST).forEach(({ id }) => known.delete(id));
    changed();
  });
  source.addEventListener("lagged", ({ data }) => {
    state.missed += JSON.parse(data).missed;
    changed();
  });
  source.addEventListener("error", () => {
    state.live = false;
    changed();
    // The browser tries again by itself, but not where it was refused.
    check();
    if (source.readyState === EventSource.CLOSED && !signal.aborted) {
      setTimeout(() => signal.aborted || listen(state, changed, signal), 3000);
    }
  });
}
