// Why somebody may or may not: before he asks, or after he was denied.

import { post } from "./api.js";
import { el, show } from "./dom.js";
import { relative } from "./format.js";
import { facts, failure, remedy, section } from "./parts.js";

export const title = "Explain";

const ASKED = [
  ["principal", "Principal", "loopback://dev, spiffe://example/team, k8s://…"],
  ["identity", "Identity", "identities/billing; empty: that of the principal's workload"],
  ["target", "Target", "https://vault.example/.default"],
];

const NONE = { principal: null, identity: null, target: null, correlation_id: null };

export function open(place, { query, change, signal }) {
  const answer = el("div", { "aria-live": "polite" });
  const ask = (values) => change({ ...NONE, ...values }) || asked(values);
  const before = form("Would it be allowed?", "Explain", ASKED, ask);
  const after = form("Why was it denied?", "Look it up", [["correlation_id", "Correlation id", "from the caller's error or log"]], ask);
  show(place, el("h1", title), el("div.columns", before.node, after.node), answer);

  async function asked(now) {
    before.say(now);
    after.say(now);
    const { correlation_id, principal, identity, target } = now;
    if (!correlation_id && !principal) return show(answer);
    try {
      const body = correlation_id ? { correlation_id } : { principal, identity: identity ?? "", target: target ?? "" };
      const explained = await post("/api/explain", body);
      if (!signal.aborted) show(answer, drawn(explained));
    } catch (error) {
      show(answer, failure(error));
    }
  }
  asked(query);
  return asked;
}

function form(name, button, members, ask) {
  const inputs = members.map(([key, label, hint]) => {
    const input = el("input", { name: key, autocomplete: "off", spellcheck: "false", required: key !== "identity" && key !== "target" });
    const note = el("span.fine", { id: `hint-${key}` }, hint);
    input.setAttribute("aria-describedby", note.id);
    return { key, input, node: el("div.hinted", el("label.field", el("span", label), input), note) };
  });
  const submitted = (event) => {
    event.preventDefault();
    ask(Object.fromEntries(inputs.map(({ key, input }) => [key, input.value.trim()])));
  };
  const node = el("form.card", { onsubmit: submitted, "aria-label": name }, el("h2", name), inputs.map((each) => each.node), [
    el("div.actions", el("button.primary", { type: "submit" }, button)),
  ]);
  const say = (query) => inputs.forEach(({ key, input }) => (input.value = query[key] ?? ""));
  return { node, say };
}

function drawn({ allowed, because = [], missing = [], command, ...asked }) {
  return section(
    "Answer",
    el("p.verdict", el(`span.pill.${allowed ? "good" : "bad"}`, allowed ? "allowed" : "denied")),
    facts(
      ["Principal", asked.principal],
      ["Identity", asked.identity],
      ["Target", asked.target],
      ["Called", asked.method],
      ["Denied", relative(asked.denied_time)],
    ),
    because.length > 0 && el("ul", because.map((text) => el("li", text))),
    missing.length > 0 && [el("h3", "What is missing"), el("ul", missing.map((text) => el("li", text)))],
    command && [el("h3", "What would allow it"), remedy(command)],
  );
}
