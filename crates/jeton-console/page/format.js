// How numbers, lengths of time and moments are written. Moments are <time> elements that go on counting by themselves.

import { el } from "./dom.js";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
const ofDay = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));
export const short = (n) => (n < 1000 ? figure(n) : compact.format(n));
/** Cut off, not rounded: what is not all of it is not 100 %. */
export const percent = (ratio) => (ratio === null || ratio === undefined ? "–" : `${hundredths.format(Math.floor(ratio * 1e4) / 100)} %`);
export const clock = (time) => ofDay.format(new Date(time));
export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

/** A rate or another figure that may be small: what is not 0 does not look like it. */
export function figure(n) {
  if (n === null || n === undefined) return "–";
  if (n > 0 && n < 0.01) return "<0.01";
  return (n < 10 ? hundredths : n < 100 ? tenths : whole).format(n);
}

/** A length of time in two units at most: "43 s", "12 min 5 s", "3 h 4 min", "12 d 3 h". */
export function length(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (a, ofA, b, ofB) => (b ? `${a} ${ofA} ${b} ${ofB}` : `${a} ${ofA}`);
  if (s < 60) return `${s} s`;
  if (s < 3600) return two(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
}

function rough(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const WRITTEN = {
  relative: (ms) => (ms > 0 ? `in ${rough(ms / 1000)}` : ms > -1000 ? "now" : `${rough(-ms / 1000)} ago`),
  age: (ms) => rough(Math.max(0, -ms / 1000)),
  countdown: (ms) => length(ms / 1000),
};

const write = (as, time) => WRITTEN[as](Date.parse(time) - Date.now());

function moment(time, as) {
  if (!time) return "–";
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  return el("time", { datetime: date.toISOString(), title: exact.format(date), "data-as": as }, write(as, date.toISOString()));
}

/** "3 min ago", "in 12 d". */
export const relative = (time) => moment(time, "relative");

/** "45 d": how old something is. */
export const age = (time) => moment(time, "age");

/** What is left of so many seconds, from now on; counts down. */
export const countdown = (seconds) => moment(Date.now() + seconds * 1000, "countdown");

/** Lets all moments count on. */
export function keepTime() {
  setInterval(() => {
    if (document.hidden) return;
    for (const node of document.querySelectorAll("time[data-as]")) {
      const text = write(node.dataset.as, node.getAttribute("datetime"));
      if (node.textContent !== text) node.textContent = text;
    }
  }, 1000);
}
