// The list of pairs beside the pictures: filters, scores, and rows of which only those in sight exist.

import { $, address, ask, count, el, percent } from "./dom.js";

const ROW = 60; // pixels of height, as in the style sheet
const PAGE = 60; // rows that are fetched together
const SHOWS = [
  ["suspects", "Suspects"], ["open", "Undecided"], ["all", "All"], ["accept", "Accepted"],
  ["edit", "Edited"], ["reject", "Rejected"], ["failed", "Failed"], ["unlabelled", "No label"],
];
const MARKS = { accept: ["✓", "good", "accepted"], edit: ["✎", "accent", "edited"], reject: ["✕", "bad", "rejected"] };

export class List {
  /** @param {(key: string) => void} chosen */
  constructor(chosen) {
    this.chosen = chosen;
    this.query = { show: "suspects", order: "worst", kind: "", finding: "", text: "", above: null };
    this.pages = new Map();
    this.total = 0;
    this.key = null;
    this.stamps = new Map();
    this.rows = $("rows");
    this.tall = this.rows.firstElementChild;
    this.rows.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(this.rows);
    $("shows").append(...SHOWS.map(([show, name]) => el("button", {
      "data-show": show, "aria-pressed": String(show === this.query.show),
      onclick: () => this.set({ show }),
    }, name, el("b", {}))));
    for (const name of ["kind", "finding", "order"]) {
      $(name).addEventListener("change", (event) => this.set({ [name]: event.target.value }));
    }
    $("search").addEventListener("input", (event) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.set({ text: event.target.value }), 180);
    });
    $("above").addEventListener("input", () => this.#drag());
  }

  /** Another query; the list begins at the pair that is shown, where it is in it. */
  async set(changes) {
    Object.assign(this.query, changes);
    for (const button of $("shows").children) {
      button.setAttribute("aria-pressed", String(button.dataset.show === this.query.show));
    }
    await this.refresh();
    this.changed?.();
  }

  /** Fetch anew what is in sight. */
  async refresh() {
    const pages = this.pages = new Map();
    const found = await ask(this.#at({ around: this.key ?? "", limit: PAGE }));
    if (pages !== this.pages) return; // a later query has overtaken it
    this.#take(found);
    if (this.key !== null && found.place !== null) this.#scrollTo(found.place);
    this.#draw();
  }

  overview(seen) {
    this.seen = seen;
    for (const button of $("shows").children) {
      const number = seen.counts[button.dataset.show];
      button.lastChild.textContent = number.toLocaleString("en");
      button.hidden = number === 0 && !["suspects", "open", "all"].includes(button.dataset.show) &&
        this.query.show !== button.dataset.show;
    }
    this.#options("kind", "any kind", seen.kinds);
    this.#options("finding", "any doubt", seen.findings);
    this.#bars(seen);
  }

  /** The pairs around one in this query: those before it, the nearest last, and those after it. */
  async around(key) {
    const found = await ask(this.#at({ around: key, limit: 9 }));
    const keys = found.rows.map((row) => row.key);
    const at = found.place === null ? 0 : found.place - found.offset;
    const own = keys[at] === key;
    return { before: keys.slice(0, at), after: keys.slice(own ? at + 1 : at), total: found.total, place: found.place };
  }

  select(key, stamp) {
    this.key = key;
    this.stamps.set(key, stamp);
    this.#draw();
  }

  async reveal(key, place) {
    if (place !== null && this.key === key) this.#scrollTo(place);
    this.#draw();
  }

  #at(values) {
    return address("/api/list", { ...this.query, ...values });
  }

  #take(found) {
    this.total = found.total;
    for (let at = 0; at < found.rows.length; at++) {
      const place = found.offset + at;
      const page = Math.floor(place / PAGE);
      if (!this.pages.has(page)) this.pages.set(page, []);
      this.pages.get(page)[place % PAGE] = found.rows[at];
    }
    this.tall.style.height = `${this.total * ROW}px`;
    $("shown").textContent = count(this.total, "pair");
  }

  #scrollTo(place) {
    const top = place * ROW, height = this.rows.clientHeight;
    if (top < this.rows.scrollTop || top + ROW > this.rows.scrollTop + height) {
      this.rows.scrollTop = Math.max(0, top - height / 2 + ROW);
    }
  }

  #draw() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW) - 4);
    const last = Math.min(this.total, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / ROW) + 4);
    const shown = [];
    for (let place = first; place < last; place++) {
      const row = this.pages.get(Math.floor(place / PAGE))?.[place % PAGE];
      if (row) shown.push(this.#row(row, place));
      else this.#fetch(Math.floor(place / PAGE));
    }
    this.tall.replaceChildren(...shown);
    const here = $(`row-${this.key}`);
    if (here) this.rows.setAttribute("aria-activedescendant", here.id);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  async #fetch(page) {
    const pages = this.pages;
    const had = pages.get(page) ?? [];
    if (had.asked) return;
    had.asked = true;
    pages.set(page, had);
    const found = await ask(this.#at({ offset: page * PAGE, limit: PAGE }));
    if (pages !== this.pages) return;
    this.#take(found);
    this.#draw();
  }

  #row(row, place) {
    const [sign, kind, name] = MARKS[row.verdict] ?? (row.suspect ? ["!", "warn", "suspect"] : ["", "", ""]);
    const thumb = (side) => el("img", {
      src: `/picture/${encodeURIComponent(row.key)}/${side}/thumb?v=${this.stamps.get(row.key) ?? this.seen?.boot ?? 0}`,
      alt: "", loading: "lazy", decoding: "async", width: 40, height: 40,
    });
    const made = el("div", {
      class: "row", role: "option", id: `row-${row.key}`, "data-key": row.key,
      "aria-selected": String(row.key === this.key), "aria-posinset": place + 1, "aria-setsize": this.total,
      onclick: () => this.chosen(row.key),
    },
      el("span", { class: "thumbs", "aria-hidden": "true" }, thumb("source"), thumb("target")),
      el("span", { class: "what" },
        el("bdi", { class: "name" }, row.key),
        el("span", { class: "said soft", dir: "auto" }, row.words || row.status.replace("_", " ") || "no label")),
      el("span", { class: "score" },
        sign && el("span", { class: `tag ${kind}`, title: name, role: "img", "aria-label": name }, sign),
        row.score === null ? null : el("span", { class: "soft" }, row.score.toFixed(2))));
    made.style.top = `${place * ROW}px`;
    return made;
  }

  #options(name, any, choices) {
    const select = $(name), chosen = this.query[name];
    select.replaceChildren(
      el("option", { value: "" }, any),
      ...choices.map(([value, number]) => el("option", { value }, `${value} (${number})`)));
    select.value = chosen;
  }

  #bars({ histogram, threshold, calibration }) {
    $("scores").hidden = !histogram.all.some(Boolean);
    const most = Math.log1p(Math.max(...histogram.all, 1));
    const above = this.query.above ?? threshold;
    const bar = (at, number, kind) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = (9.6 * Math.log1p(number)) / most;
      for (const [key, value] of Object.entries({ x: at + 0.1, y: 10 - height, width: 0.8, height, class: kind })) {
        rect.setAttribute(key, String(value));
      }
      return rect;
    };
    const bars = histogram.all.length;
    $("bars").replaceChildren(...histogram.all.flatMap((all, at) => [
      bar(at, all, "done"), bar(at, histogram.open[at], (at + 0.5) / bars > above ? "open over" : "open")]));
    if (document.activeElement !== $("above") || this.query.above === null) $("above").value = above;
    $("above-text").textContent = `${calibration.left.toLocaleString("en")} undecided above ${above.toFixed(2)}`;
    const more = calibration.enough - calibration.accepted;
    const alarms = calibration.rate === undefined
      ? `${count(more, "more accepted label")} until the rate of false alarms is known.`
      : `Of ${calibration.accepted} accepted labels ${percent(calibration.rate)} lie above it ` +
        `(${calibration.between.map((share) => percent(share)).join(" to ")}). For ` +
        `${percent(calibration.wanted)} false alarms: ${calibration.threshold.toFixed(2)}, ` +
        `${calibration.left_there.toLocaleString("en")} left to look at.`;
    $("calibration").textContent = alarms;
  }

  #drag() {
    this.query.above = Number($("above").value);
    if (this.seen) this.#bars({ ...this.seen, calibration: { ...this.seen.calibration, left: this.#leftBars() } });
    clearTimeout(this.dragging);
    this.dragging = setTimeout(() => this.set({}), 120);
  }

  /** Undecided labels above the threshold, by the bars, until the server has counted them. */
  #leftBars() {
    const open = this.seen.histogram.open;
    return open.reduce((sum, number, at) => sum + ((at + 0.5) / open.length > this.query.above ? number : 0), 0);
  }
}
