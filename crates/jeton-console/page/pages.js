// A part of a list that is too long for a page: it follows the scrolling, and holds a few of the server's pages at a time.

import { get } from "./api.js";

const SIZE = 100;
const MOST_PAGES = 3;

/** The part of the list at `path` that is held. `query()` says which list. */
export class Pages {
  constructor(path, query, signal) {
    Object.assign(this, { path, query, signal, held: [], total: null });
    this.list = 0;
    this.turns = Promise.resolve();
  }

  get rows() {
    return this.held.flatMap(({ rows }) => rows);
  }

  /** How many rows come before those that are held. */
  get before() {
    return this.held[0]?.first ?? 0;
  }

  get earlier() {
    return this.held[0]?.previous ?? null;
  }

  get later() {
    return this.held.at(-1)?.next ?? null;
  }

  /** What brings the same part back. */
  get place() {
    return this.held.map(({ token, first }) => ({ token, first }));
  }

  /** Asks anew for what is held, or for the part at `place`. All of these say whether it is still the same list that was asked for. */
  refresh(place) {
    return this.#inTurn(async () => {
      const asked = place ?? (this.held.length ? this.place : [{ token: "", first: 0 }]);
      return Promise.all(asked.map(({ token, first }) => this.#page(token, first)));
    });
  }

  /** Begins at the top of another list. */
  restart() {
    this.list += 1;
    return this.#inTurn(async () => [await this.#page("", 0)]);
  }

  /** Goes on behind the last page; the first one goes when it gets too long. */
  goOn() {
    return this.#inTurn(async () => {
      const { next, first, rows } = this.held.at(-1);
      return next ? [...this.held, await this.#page(next, first + rows.length)].slice(-MOST_PAGES) : this.held;
    });
  }

  /** Goes back before the first page. */
  goBack() {
    return this.#inTurn(async () => {
      const { previous, first } = this.held[0];
      return previous ? [await this.#page(previous, Math.max(0, first - SIZE)), ...this.held].slice(0, MOST_PAGES) : this.held;
    });
  }

  /** One after another: each step goes on from where the one before has led. */
  #inTurn(step) {
    const list = this.list;
    const turn = this.turns.then(async () => {
      if (list !== this.list) return false;
      const held = await step();
      if (list !== this.list) return false;
      this.held = held.length > 1 ? held.filter(({ rows }) => rows.length > 0) : held;
      return true;
    });
    this.turns = turn.catch(() => {});
    return turn;
  }

  async #page(token, first) {
    const query = { ...this.query(), page_size: SIZE, page_token: token };
    const answer = await get(this.path, { query, signal: this.signal });
    this.total = answer.total;
    return { token, first, rows: answer.identities, next: answer.next_page_token, previous: answer.previous_page_token };
  }
}
