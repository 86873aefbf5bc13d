// The label's texts: counted, and held word by word against the model's.

import { $, ask, el } from "./dom.js";

const split = (text) => text.match(/\s+|[\p{L}\p{N}'’-]+|[^\s\p{L}\p{N}]/gu) ?? [];
const MOST = 900; // words of a text up to which a comparison is worth its time

/** Both texts as runs of [kept | gone | come, text], by their longest common sequence of words. */
export function compare(old, now) {
  const a = split(old), b = split(now);
  if (a.length > MOST || b.length > MOST) return [["gone", old], ["come", now]];
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] = a[i] === b[j]
        ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const runs = [];
  const add = (kind, word) => {
    if (runs.at(-1)?.[0] === kind) runs.at(-1)[1] += word;
    else runs.push([kind, word]);
  };
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("kept", a[i++]);
      j++;
    } else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) {
      add("gone", a[i++]);
    } else {
      add("come", b[j++]);
    }
  }
  return runs;
}

const words = (text) => text.split(/\s+/).filter(Boolean).length;

/** The two fields of a label. */
export class Texts {
  constructor(changed) {
    this.fields = { caption: $("caption"), caption_cot: $("cot") };
    this.counts = { caption: $("caption-count"), caption_cot: $("cot-count") };
    this.tokens = null;
    for (const field of Object.values(this.fields)) {
      field.addEventListener("input", () => {
        this.#show();
        changed();
      });
    }
  }

  show(pair) {
    this.pair = pair;
    const own = pair.status === null ? pair.model : { caption: pair.caption, cot: pair.cot };
    this.before = { caption: own.caption ?? "", caption_cot: own.cot ?? "" };
    for (const [name, field] of Object.entries(this.fields)) field.value = this.before[name];
    this.tokens = null;
    this.#show();
  }

  get now() {
    return { caption: this.fields.caption.value.trim(), caption_cot: this.fields.caption_cot.value.trim() };
  }

  get edited() {
    const { caption, caption_cot } = this.now;
    return caption !== this.before.caption.trim() || caption_cot !== this.before.caption_cot.trim();
  }

  #show() {
    for (const [name, field] of Object.entries(this.fields)) {
      const most = name === "caption" ? "" : this.tokens === null ? "" : ` · ${this.tokens} of 512 tokens`;
      this.counts[name].textContent = `${words(field.value)} words${most}`;
    }
    this.#count();
    const model = this.pair.model;
    const parts = [["", model.caption ?? "", this.now.caption], ["\n", model.cot ?? "", this.now.caption_cot]]
      .filter(([, old, now]) => old !== now);
    $("diff").hidden = parts.length === 0 || (model.caption === null && model.cot === null);
    $("diff-text").replaceChildren(...parts.flatMap(([gap, old, now]) => [
      gap,
      ...compare(old, now).map(([kind, text]) =>
        kind === "kept" ? text : el(kind === "gone" ? "del" : "ins", {}, text)),
    ]));
  }

  /** Tokens are counted by the server, once typing rests. */
  #count() {
    clearTimeout(this.waiting);
    if (this.uncounted) return;
    this.waiting = setTimeout(async () => {
      const text = this.now.caption_cot || this.now.caption;
      const said = await ask("/api/tokens", text).catch(() => ({ tokens: null }));
      if (said.tokens === null) this.uncounted = true;
      if (said.tokens === this.tokens) return;
      this.tokens = said.tokens;
      const rest = this.tokens === null ? "" : ` · ${this.tokens} of 512 tokens`;
      this.counts.caption_cot.textContent = `${words(this.fields.caption_cot.value)} words${rest}`;
    }, 250);
  }
}
