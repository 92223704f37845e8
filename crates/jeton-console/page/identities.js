// All identities, the worst first: search, filter, sort. What is chosen stands in the address.

import { connection, get } from "./api.js";
import { el, show } from "./dom.js";
import { age, count, plural, relative } from "./format.js";
import { empty, failure, identityLink, select, starving, statePill } from "./parts.js";
import { Pages } from "./pages.js";
import { poll } from "./poll.js";
import { table } from "./table.js";

export const title = "Identities";

const STATES = ["provisioning", "active", "disabled", "deleting", "failed"];
const SORTS = [
  ["worst", "Worst first"],
  ["name", "Name"],
  ["credential", "Credential's age"],
  ["next_refresh", "Next refresh"],
  ["last_use", "Last use"],
];
const TYPING_MS = 200;

/** Where each list was left, for whoever comes back to it. */
const left = new Map();

export function open(place, { query: asked, signal, change }) {
  let query = asked;
  const pages = new Pages("/api/identities", () => listOf(query), signal);
  const controls = toolbar(query, change, signal);
  const list = el("div.list", empty("Loading…"));
  const status = el("p.status", { role: "status" });
  show(place, el("h1", title), el("div.toolbar", { role: "search", "aria-label": "Identities" }, controls.nodes), status, list);
  if (query.focus) {
    controls.search.focus();
    change({ focus: null }, { replace: true });
  }

  const watch = watchEnds(signal);
  const draw = () => {
    const part = pages.rows.length < pages.total && el("span.fine", ` · ${range(pages)} shown`);
    show(status, plural(pages.total, "identity", "identities"), part);
    show(list, drawn(pages, query, change, { earlier: () => moving(() => pages.goBack()), later: () => moving(() => pages.goOn()) }));
    watch(list);
  };
  const failed = (error) => {
    if (!signal.aborted && !connection.failure) show(list, failure(error));
  };

  /** Changes which part is held; what is looked at stays where it is. */
  function moving(step) {
    step().then((same) => same && anchored(list, draw), failed);
  }

  const before = left.get(listKey(query));
  let back = before?.place;
  poll(() => 5, signal, async () => {
    if (!(await pages.refresh(back))) return;
    anchored(list, draw);
    if (back) scrollTo(0, before.scroll);
    back = undefined;
  }, failed);
  // The address is another one already, and the scrolling that of this page until it goes.
  signal.addEventListener("abort", () => left.set(listKey(query), { place: pages.place, scroll: scrollY }));

  return (changed) => {
    if (listKey(changed) === listKey(query)) return;
    query = changed;
    controls.say(query);
    list.setAttribute("aria-busy", "true");
    pages.restart().then((same) => {
      if (!same) return;
      list.removeAttribute("aria-busy");
      scrollTo(0, 0);
      draw();
    }, failed);
  };
}

const listOf = ({ q, state, authority, sort = "worst", descending }) => ({ q, state, authority, sort, descending });
const listKey = (query) => JSON.stringify(listOf(query));
const range = (pages) => `${count(pages.before + 1)}–${count(pages.before + pages.rows.length)}`;

/** Draws anew while the first row that stays in sight does not move. */
function anchored(list, draw) {
  const top = [...list.querySelectorAll("tbody tr")].find((row) => row.getBoundingClientRect().bottom > 0);
  const before = top?.getBoundingClientRect().top;
  draw();
  // At the top of the list the worst is to come into sight, whoever was first before.
  if (top?.isConnected && scrollY > 0) scrollBy(0, top.getBoundingClientRect().top - before);
}

/** Presses the buttons at both ends of the list when they come near. */
function watchEnds(signal) {
  const pressed = (entries) => entries.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => target.click());
  const seen = new IntersectionObserver(pressed, { rootMargin: "600px" });
  signal.addEventListener("abort", () => seen.disconnect());
  return (list) => {
    seen.disconnect();
    list.querySelectorAll("button.more").forEach((button) => seen.observe(button));
  };
}

function drawn(pages, query, change, { earlier, later }) {
  if (!pages.rows.length) return empty("No identity is like that.");
  const rows = table("Identities", pages.rows, columns(query, change), ({ name }) => name, { count: pages.total, before: pages.before });
  return [
    pages.earlier && el("button.more", { type: "button", key: "earlier", onclick: earlier }, "Earlier ones"),
    rows,
    pages.later && el("button.more", { type: "button", key: "later", onclick: later }, "More"),
  ];
}

function columns(query, change) {
  const by = (sort) => {
    const sorted = (query.sort ?? "worst") === sort;
    const descending = query.descending === "true";
    return { sorted, descending, choose: () => change({ sort, descending: sorted && !descending ? "true" : null }) };
  };
  return [
    ["Identity", named, "wide", by("name")],
    ["State", ({ state, starves_in_seconds: seconds }) => [statePill(state), starving(seconds)], "state", by("worst")],
    ["Authority", ({ authority }) => authority.replace("authorities/", "")],
    ["Credential", credential, "", by("credential")],
    ["Next refresh", ({ next_refresh_time: time }) => relative(time), "", by("next_refresh")],
    ["Last use", ({ last_use_time: time }) => relative(time), "", by("last_use")],
    ["Consumers", ({ consumers }) => count(consumers), "number"],
    ["Tokens", ({ tokens }) => count(tokens), "number"],
  ];
}

function named({ name, display_name: display, kind, workload, last_error: error }) {
  const fine = [display, kind, workload].filter(Boolean).join(" · ");
  return [identityLink(name), fine && el("span.fine", fine), error && el("span.error", error)];
}

function credential({ credential_create_time: made, credential_expire_time: ends }) {
  if (!made) return "–";
  return [el("span", age(made), " old"), ends && el("span.fine", "ends ", relative(ends))];
}

function toolbar(query, change, signal) {
  let typing = 0;
  const search = el("input", { type: "search", placeholder: "Name, display name or client id", autocomplete: "off", spellcheck: "false" });
  search.oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(() => signal.aborted || change({ q: search.value }, { replace: true }), TYPING_MS);
  };
  const state = select("State", [["", "all"], ...STATES.map((name) => [name, name])], (value) => change({ state: value }));
  const authority = select("Authority", [["", "all"]], (value) => change({ authority: value }));
  const sort = select("Sort by", SORTS, (value) => change({ sort: value, descending: null }));
  const reversed = el("input", { type: "checkbox", onchange: () => change({ descending: reversed.checked ? "true" : null }) });

  const say = (now) => {
    if (document.activeElement !== search) search.value = now.q ?? "";
    state.control.value = now.state ?? "";
    authority.control.value = now.authority ?? "";
    sort.control.value = now.sort ?? "worst";
    reversed.checked = now.descending === "true";
  };
  say(query);
  offerAuthorities(authority, query, signal);
  const box = el("label.field.check", reversed, el("span", "reversed"));
  return { nodes: [el("label.field.grow", el("span", "Search"), search), state.node, authority.node, sort.node, box], search, say };
}

async function offerAuthorities({ offer, control }, query, signal) {
  const { authorities } = await get("/api/authorities", { signal }).catch(() => ({ authorities: [] }));
  if (!authorities.length) return;
  const chosen = control.value || query.authority || "";
  offer([["", "all"], ...authorities.map(({ name }) => [name, name.replace("authorities/", "")])], chosen);
  control.value = chosen;
}
