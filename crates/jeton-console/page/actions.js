// What may be done to an identity. What takes something away asks first, and says what will happen.

import { identityPath, post } from "./api.js";
import { el, show } from "./dom.js";
import { plural } from "./format.js";
import { failure, toast } from "./parts.js";
import * as pulse from "./pulse.js";

const ACTIONS = {
  refresh: {
    name: "Refresh tokens",
    may: ({ state }) => state === "active",
    done: refreshed,
  },
  rotate: {
    name: "Rotate credential",
    may: ({ state }) => state === "active",
    done: () => "the rotation has begun.",
    asks: () => [
      "A new key is made, registered beside the present one, and proved by a real grant. Only then is it used.",
      "Callers notice nothing. If a step fails, the present key stays in use.",
    ],
  },
  disable: {
    name: "Disable",
    may: ({ state }) => state === "active",
    done: () => "it is disabled.",
    danger: true,
    asks: ({ consumers, tokens }) => [
      `It gets no more tokens, and ${plural(tokens ?? 0, "token", "tokens")} in memory will not be served any more.`,
      `${consumers ? plural(consumers, "consumer is", "consumers are") : "Whoever uses it is"} refused until it is enabled again.`,
    ],
  },
  enable: {
    name: "Enable",
    may: ({ state }) => ["disabled", "failed"].includes(state),
    done: () => "it is enabled.",
  },
};
/** Whose permission each takes. */
const PERMISSION = { refresh: "refresh", rotate: "rotate", disable: "disable", enable: "disable" };

/** The buttons for those who may. `after` runs when something was done. */
export function buttons(identity, may, after) {
  if (identity.may_change === false) return [];
  const there = Object.entries(ACTIONS).filter(([verb, action]) => may[PERMISSION[verb]] && action.may(identity));
  return there.map(([verb, action]) => {
    const press = () => (action.asks ? ask(identity, verb, action, after) : act(identity, verb, action).then(after, failed));
    return el(`button${action.danger ? ".danger" : ""}`, { type: "button", key: verb, onclick: press }, action.name);
  });
}

async function act({ name }, verb, { done }) {
  const answer = await post(identityPath(name, verb));
  toast(`${name}: ${done(answer)}`);
  pulse.now();
}

function refreshed({ under_way: asked, left }) {
  if (!asked && !left) return "no token of it is in memory.";
  const waiting = left ? ` ${plural(left, "is", "are")} left: an authority's Retry-After is not over, or there are too many at once.` : "";
  return `${plural(asked, "new token is", "new tokens are")} being asked for.${waiting}`;
}

function failed(error) {
  toast(error.remedy ? `${error.message} ${error.remedy}` : error.message, "bad");
}

function ask(identity, verb, action, after) {
  const wrong = el("div");
  const cancel = el("button", { type: "button", onclick: () => dialog.close(), autofocus: true }, "Cancel");
  const go = el(`button.${action.danger ? "danger" : "primary"}`, { type: "button" }, action.name);
  go.onclick = async () => {
    go.disabled = true;
    try {
      await act(identity, verb, action);
      dialog.close();
      after();
    } catch (error) {
      show(wrong, failure(error));
      go.disabled = false;
    }
  };
  const title = el("h2", { id: "asks" }, `${action.name}: ${identity.name}?`);
  const dialog = el("dialog", { "aria-labelledby": "asks", "aria-describedby": "asks-what" }, title, [
    el("div", { id: "asks-what" }, action.asks(identity).map((text) => el("p", text))),
    wrong,
    el("div.actions", cancel, go),
  ]);
  // Whoever had the focus gets it back, if it is still there.
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
