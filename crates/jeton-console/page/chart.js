// Lines over the last minutes, drawn as SVG. Pointer or arrow keys read off values; what a reader of screens needs stands in words.

import { el, show, svg } from "./dom.js";
import { clock, figure, short } from "./format.js";

const HEIGHT = 150;
const MARGIN = { left: 40, right: 8, top: 8, bottom: 20 };
const LINES_OF_TIME_MS = 5 * 60_000;

/** A chart of `series`, `[member of a point, name]` each: its node, and `draw(points)`. */
export function chart(name, unit, series, signal) {
  const picture = svg("svg", { tabindex: 0, role: "img", height: HEIGHT });
  const legend = el("ul.legend");
  const node = el("figure.card.chart", el("figcaption", el("h2", name, el("span.unit", ` ${unit}`)), legend), picture);
  const state = { points: [], at: null, width: 400 };

  const redraw = () => {
    picture.setAttribute("aria-label", words(name, unit, series, state.points));
    show(legend, legendOf(series, state));
    draw(picture, series, state);
  };
  const read = (at) => {
    state.at = at;
    redraw();
  };

  picture.onpointermove = ({ clientX }) => read(nearest(state, clientX - picture.getBoundingClientRect().left));
  picture.onpointerleave = () => read(null);
  picture.onblur = () => read(null);
  picture.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !state.points.length) return;
    const last = state.points.length - 1;
    read(Math.min(last, Math.max(0, (state.at ?? last + (by < 0 ? 1 : 0)) + by)));
    event.preventDefault();
  };

  const sized = new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - state.width) < 1) return;
    state.width = contentRect.width;
    redraw();
  });
  sized.observe(picture);
  signal.addEventListener("abort", () => sized.disconnect());
  redraw();
  return {
    node,
    draw(points) {
      // What is read off stays the same moment while others come in.
      const time = state.points[state.at]?.time;
      const at = points.findIndex((point) => point.time === time);
      Object.assign(state, { points, at: at < 0 ? null : at });
      redraw();
    },
  };
}

function words(name, unit, series, points) {
  if (!points.length) return `${name} ${unit}: nothing measured yet`;
  const each = series.map(([member, label]) => {
    const values = points.map((point) => point[member]);
    return `${label}: ${figure(values.at(-1))} now, between ${figure(Math.min(...values))} and ${figure(Math.max(...values))}`;
  });
  return `${name} ${unit} since ${clock(points[0].time)}. ${each.join("; ")}`;
}

function legendOf(series, { points, at }) {
  const point = points[at ?? points.length - 1];
  const when = at !== null && point ? el("li.when", clock(point.time)) : null;
  return [when, series.map(([member, label], i) => el("li", el(`i.dot.line-${i}`), `${label} `, el("strong", figure(point?.[member]))))];
}

function draw(picture, series, { points, at, width }) {
  picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  if (points.length < 2) {
    show(picture, svg("text.axis", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "waiting for measurements"));
    return;
  }
  const { x, y, top } = scales(series, points, width);
  const lines = series.map(([member], i) => line(points, member, i, x, y));
  show(picture, across(y, top, width), along(points, x), lines.reverse(), at !== null && readOff(series, points[at], x, y));
}

function scales(series, points, width) {
  const from = Date.parse(points[0].time);
  const span = Date.parse(points.at(-1).time) - from || 1;
  const most = Math.max(...points.flatMap((point) => series.map(([member]) => point[member] ?? 0)));
  const top = nice(most);
  const inner = HEIGHT - MARGIN.top - MARGIN.bottom;
  return {
    top,
    x: (time) => MARGIN.left + ((new Date(time) - from) / span) * (width - MARGIN.left - MARGIN.right),
    y: (value) => MARGIN.top + inner * (1 - value / top),
  };
}

/** The next number that an axis likes to end with. */
function nice(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= most);
}

function line(points, member, i, x, y) {
  const there = points.map((point) => `${x(point.time).toFixed(1)},${y(point[member] ?? 0).toFixed(1)}`);
  const [first, last] = [x(points[0].time), x(points.at(-1).time)];
  const area = i === 0 && svg("polygon.area", { points: `${first},${y(0)} ${there.join(" ")} ${last},${y(0)}` });
  return svg("g", { key: member }, area, svg(`polyline.line-${i}`, { points: there.join(" ") }));
}

function across(y, top, width) {
  return [0, 0.5, 1].map((part) => {
    const at = y(top * part);
    const label = svg("text.axis", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, short(top * part));
    return svg("g", { key: `y${part}` }, svg("line.grid", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }), label);
  });
}

function along(points, x) {
  const [from, to] = [Date.parse(points[0].time), Date.parse(points.at(-1).time)];
  const step = to - from > LINES_OF_TIME_MS ? LINES_OF_TIME_MS : LINES_OF_TIME_MS / 5;
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) marks.push(at);
  return marks.map((at) => {
    const place = Math.min(x(at), x(to) - 14);
    return svg("text.axis", { x: place, y: HEIGHT - 4, "text-anchor": "middle", key: `x${at}` }, clock(at).slice(0, 5));
  });
}

function readOff(series, point, x, y) {
  const at = x(point.time);
  const dots = series.map(([member], i) => svg(`circle.line-${i}`, { cx: at, cy: y(point[member] ?? 0), r: 3.5 }));
  return svg("g", { key: "read" }, svg("line.cross", { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }), dots);
}

function nearest({ points, width }, px) {
  if (points.length < 2) return null;
  const { x } = scales([], points, width);
  const distance = (i) => Math.abs(x(points[i].time) - px);
  return points.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
}
