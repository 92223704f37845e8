// Tables, which become cards on a phone: each cell carries its column's name.

import { el } from "./dom.js";

/**
 * A table. A column is `[heading, cell(row), class, sort]`; where `sort` is given the heading is a button that says so. `key(row, at)` tells
 * rows apart. Where these are not all, `count` says how many there are, and `before` how many come before.
 */
export function table(label, rows, columns, key, { count = null, before = 0 } = {}) {
  const head = columns.map(([heading, , kind, sort]) => header(heading, kind, sort));
  const body = rows.map((row, at) => line(row, columns, key(row, at), count === null ? null : before + at + 2));
  // On a phone rows are no rows to the browser any more: their roles say that they still are.
  return el("table", { role: "table", "aria-label": label, "aria-rowcount": count === null ? null : count + 1 }, [
    el("thead", { role: "rowgroup" }, el("tr", { role: "row", "aria-rowindex": count === null ? null : 1 }, head)),
    el("tbody", { role: "rowgroup" }, body),
  ]);
}

function header(heading, kind, sort) {
  if (!sort) return el(`th${kind ? `.${kind}` : ""}`, { scope: "col", role: "columnheader" }, heading);
  const order = sort.sorted ? (sort.descending ? "descending" : "ascending") : "none";
  const arrow = sort.sorted ? (sort.descending ? "↓" : "↑") : "";
  const button = el("button.sort", { type: "button", onclick: sort.choose }, heading, el("span.arrow", { "aria-hidden": "true" }, arrow));
  return el(`th${kind ? `.${kind}` : ""}`, { scope: "col", role: "columnheader", "aria-sort": order }, button);
}

function line(row, columns, key, index) {
  const cells = columns.map(([heading, cell, kind]) =>
    el(`td${kind ? `.${kind}` : ""}`, { role: "cell", "data-label": heading }, el("div.cell", cell(row))),
  );
  return el("tr", { role: "row", key, "aria-rowindex": index }, cells);
}
