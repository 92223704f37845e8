// The frame: which page is shown, and what stands around it. Each page is a module with `open(place, route)`.

import { connection, check, get } from "./api.js";
import { el, show } from "./dom.js";
import { keepTime, plural } from "./format.js";
import { listen } from "./keys.js";
import { failure } from "./parts.js";
import * as pulse from "./pulse.js";
import * as overview from "./overview.js";
import * as identities from "./identities.js";
import * as identity from "./identity.js";
import * as authorities from "./authorities.js";
import * as events from "./events.js";
import * as explain from "./explain.js";

const PAGES = [
  [/^\/?$/, overview],
  [/^\/identities$/, identities],
  [/^\/identities\/(.+)$/, identity],
  [/^\/authorities$/, authorities],
  [/^\/events$/, events],
  [/^\/explain$/, explain],
];
const TRY_AGAIN_MS = 3000;

const main = document.getElementById("main");
let me = { may: {} };
let current = { path: null, leave: new AbortController(), queried: null, title: "" };
let needing = 0;

function route() {
  const [path, search = ""] = (location.hash.slice(1) || "/").split("?", 2);
  const query = Object.fromEntries(new URLSearchParams(search));
  if (path === current.path) current.queried?.(query);
  else open(path, query);
}

function open(path, query) {
  const first = current.path === null;
  current.leave.abort();
  const leave = new AbortController();
  const [page, id] = found(path);
  current = { path, leave, queried: null, title: page?.title ?? "Not found" };
  show(main);
  if (!page) {
    show(main, el("h1", "Not found"), el("p", "There is no such page. ", el("a", { href: "#/" }, "Overview")));
  } else {
    const place = el("div.page");
    main.append(place);
    const named = (title) => {
      current.title = title;
      entitle();
    };
    current.queried = page.open(place, { id, query, me, signal: leave.signal, named, change: (more, how) => change(path, more, how) }) ?? null;
  }
  mark(path);
  entitle();
  scrollTo(0, 0);
  // Whoever listens to the page hears where he is; a page that took the focus itself keeps it.
  if (!first && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
}

function found(path) {
  for (const [pattern, page] of PAGES) {
    const matched = pattern.exec(path);
    if (matched) return [page, matched[1] && decoded(matched[1])];
  }
  return [null];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Puts members of the query into the address, so that it can be shared; null takes one away. False: they stand there already. */
function change(path, members, { replace = false } = {}) {
  const query = { ...Object.fromEntries(new URLSearchParams(location.hash.split("?", 2)[1])), ...members };
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== "");
  const search = new URLSearchParams(kept).toString();
  const hash = `#${path}${search && `?${search}`}`;
  if (hash === location.hash) return false;
  if (replace) {
    history.replaceState(null, "", hash);
    current.queried?.(Object.fromEntries(kept));
  } else {
    location.hash = hash;
  }
  return true;
}

function mark(path) {
  for (const link of document.querySelectorAll("#pages a")) {
    const target = link.getAttribute("href").slice(1);
    const here = target === "/" ? path === "/" : path === target || path.startsWith(`${target}/`);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function entitle() {
  document.title = `${needing ? `(${needing}) ` : ""}${current.title} · Jeton`;
}

/** The header's word on health; what is new is said to whoever listens. */
function healthy() {
  const known = new Set();
  let first = true;
  pulse.follow(new AbortController().signal, ({ problems, node, version }) => {
    const health = document.getElementById("health");
    needing = problems.length;
    health.className = `health ${needing ? "bad" : "good"}`;
    health.textContent = needing ? plural(needing, "problem", "problems") : "Healthy";
    entitle();
    show(document.getElementById("foot"), `${node} · Jeton ${version}${me.principal ? ` · ${me.principal}` : ""}`);
    const fresh = problems.filter(({ subject }) => !known.has(subject));
    known.clear();
    problems.forEach(({ subject }) => known.add(subject));
    if (fresh.length && !first) document.getElementById("announced").textContent = `New problem: ${fresh[0].subject}: ${fresh[0].message}`;
    first = false;
  });
}

function watchConnection() {
  let timer = 0;
  connection.addEventListener("change", () => {
    clearInterval(timer);
    show(document.getElementById("banner"), connection.failure && failure(connection.failure));
    document.body.classList.toggle("stale", connection.failure !== null);
    if (connection.failure) timer = setInterval(check, TRY_AGAIN_MS);
  });
}

async function start() {
  watchConnection();
  listen();
  keepTime();
  document.querySelector(".skip").onclick = (event) => {
    event.preventDefault();
    main.focus();
  };
  me = await get("/api/me").catch(() => me);
  pulse.start();
  healthy();
  addEventListener("hashchange", route);
  route();
}

start();
