// The broker's state, asked for on every page: the header says on each whether something needs attention.

import { get } from "./api.js";
import { poll } from "./poll.js";

const followers = new Map();
let latest = null;
let ask = () => {};

/** Calls `follower` with each overview until the signal says stop, at once with the latest one. It wants one every so many seconds. */
export function follow(signal, follower, seconds = 5) {
  followers.set(follower, seconds);
  signal.addEventListener("abort", () => followers.delete(follower));
  if (latest) follower(latest);
  ask();
}

/** Starts to ask. */
export function start() {
  const never = new AbortController().signal;
  ask = poll(() => Math.min(5, ...followers.values()), never, async () => {
    latest = await get("/api/overview");
    for (const follower of followers.keys()) follower(latest);
  });
}

/** For after a change: asks now. */
export const now = () => ask();
