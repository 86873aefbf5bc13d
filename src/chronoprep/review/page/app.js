// The review page: one pair at a time, a key for everything, each decision written at once.

import { $, address, ask, count, el, toast } from "./dom.js";
import { List } from "./list.js";
import { Pictures, pictureOf } from "./pictures.js";
import { Texts } from "./texts.js";

const AHEAD = 3; // pairs on either side whose pictures are fetched before they are asked for
const LATEST = 3000; // milliseconds that counts may lag behind
const NEWS = 2500; // milliseconds between looks at what others have done
const ERRORS = {
  object: "wrong object", place: "wrong place", colour: "wrong colour", direction: "wrong way round",
  missing: "something is missing", invented: "something is invented", wording: "badly worded",
  images: "the pictures are no good", other: "something else",
};
const SEVERITIES = { minor: "minor", major: "major", critical: "critical" };

const list = new List((key) => act(() => leave() && open(key)));
const pictures = new Pictures();
const texts = new Texts(() => showActions());
const known = new Map(); // pairs that were fetched ahead
const done = []; // what this page has decided: [key, action], for undo
let pair = null, near = { before: [], after: [] }, version = 0;

// ---- one thing after the other: keys that come faster than the server answers wait their turn

let turn = Promise.resolve(), waiting = 0;
const typed = []; // keys that came meanwhile
function act(work) {
  waiting++;
  turn = turn.then(work).catch((failure) => {
    typed.length = 0;
    toast([failure.message, failure.body?.hint].filter(Boolean).join(" "), "bad");
  }).finally(() => {
    waiting--;
    while (waiting === 0 && typed.length > 0) typeNow(typed.shift());
  });
  return turn;
}

/** A key that has waited, as if it came now. */
function typeNow({ key, ctrlKey }) {
  const field = document.activeElement.closest("textarea");
  if (field && ctrlKey && key === "a") {
    field.select();
  } else if (field && !ctrlKey && key.length === 1) {
    field.setRangeText(key, field.selectionStart, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  } else {
    pressed(new KeyboardEvent("keydown", { key, ctrlKey, cancelable: true }), document.activeElement);
  }
}

async function overview() {
  const seen = await ask(address("/api/overview", { above: list.query.above }));
  list.overview(seen);
  version = Math.max(version, seen.version);
  $("dataset").textContent = seen.dataset;
  document.title = `${seen.dataset} – review`;
  $("reviewer").textContent = seen.reviewer ?? "";
  $("relabel").hidden = !seen.relabel;
  $("rescore").hidden = seen.outdated === 0;
  $("rescore").textContent = `${count(seen.outdated, "label")} verified since: count them in`;
  const decided = seen.counts.accept + seen.counts.edit + seen.counts.reject;
  const all = decided + seen.counts.suspects;
  const share = all ? (100 * decided) / all : 0;
  $("progress").setAttribute("aria-valuenow", String(Math.round(share)));
  $("progress").firstElementChild.style.width = `${share}%`;
  $("progress-text").textContent = `${decided.toLocaleString("en")} decided · ${count(seen.counts.suspects, "suspect")} left`;
  return seen;
}

const fetched = (key) => {
  if (!known.has(key)) {
    known.set(key, ask(`/api/pair/${encodeURIComponent(key)}`));
    known.get(key).catch(() => known.delete(key));
  }
  return known.get(key);
};

// ---- showing

async function open(key) {
  show(await fetched(key));
  await lookAround();
}

function show(next) {
  const other = pair?.key !== next.key;
  pair = next;
  list.select(pair.key, pair.stamp);
  history.replaceState(null, "", `/#${encodeURIComponent(pair.key)}`);
  $("key").textContent = pair.key;
  $("tags").replaceChildren(...tags());
  $("notes").replaceChildren(...notes());
  texts.show(pair);
  facts();
  pictures.show(pair);
  if (other) $("words").scrollTop = 0;
  showActions();
}

async function lookAround() {
  const key = pair.key;
  near = await list.around(key);
  list.reveal(key, near.place);
  const ahead = [...near.after.slice(0, AHEAD), ...near.before.slice(-AHEAD).reverse()];
  for (const one of known.keys()) if (one !== key && !ahead.includes(one)) known.delete(one);
  for (const one of ahead) {
    fetched(one).then((coming) => {
      for (const side of ["source", "target"]) new Image().src = pictureOf(coming, side, pictures.view);
    }).catch(() => {});
  }
  showActions();
}

function tags() {
  const made = [];
  const tag = (text, kind = "") => made.push(el("span", { class: `tag ${kind}` }, text));
  const said = { accept: ["accepted", "good"], edit: ["edited", "accent"], reject: ["rejected", "bad"] }[pair.verdict];
  if (said) tag(pair.reviewer ? `${said[0]} by ${pair.reviewer}` : said[0], said[1]);
  else if (pair.suspect) tag("suspect", "warn");
  if (pair.status === "failed") tag("failed", "bad");
  if (pair.status === "no_change") tag("no change");
  if (pair.edit && pair.edit !== "no change") tag(pair.edit);
  if (pair.score !== null) tag(`score ${pair.score.toFixed(2)}`);
  if (pair.turned) tag("roles exchanged", "accent");
  return made;
}

function notes() {
  const made = [];
  const note = (kind, title, ...lines) => made.push(el("div", { class: `note ${kind}` },
    el("h3", {}, title), lines.length ? el("ul", {}, lines.map((line) => el("li", { dir: "auto" }, line))) : null));
  if (pair.relabelling) note("accent", "A new label is on its way …");
  if (pair.relabel_failed) note("bad", "No new label", pair.relabel_failed);
  if (pair.verdict === "reject") {
    const why = [pair.severity, ERRORS[pair.error] ?? pair.error, pair.remark].filter(Boolean);
    note("bad", "Rejected", ...(why.length ? [why.join(", ")] : []));
  }
  if (pair.stale) note("bad", "The pictures are others than those that this label was written for.");
  if (pair.turned && pair.status === null) {
    note("accent", "The label below was written for the other order.", "Accept it, change it, or have it written anew.");
  }
  if (pair.failure) note("bad", "The last try failed", pair.failure);
  if (pair.reasons.length) {
    const below = pair.percentile >= 50 ? `worse than ${Math.floor(pair.percentile)} % of the labels` : "";
    note(pair.suspect ? "warn" : "", ["Why it is doubted", below].filter(Boolean).join(": "), ...pair.reasons);
  } else if (pair.score === null && pair.status === "ok" && pair.verdict === null) {
    note("", "Not verified yet", "chronoprep verify tells which labels to look at first.");
  }
  return made;
}

function facts() {
  const { provenance: p } = pair;
  const lines = p === null ? [] : [
    ["origin", p.origin], ["model", p.model && [p.model, p.revision].filter(Boolean).join(" @ ")],
    ["CoT by", p.cot_model && p.cot_model !== p.model && p.cot_model], ["answered by", p.answered_by],
    ["prompts", p.prompts.join(", ")], ["written", p.time],
    ["seconds", p.seconds], ["images", p.notes.join("; ")],
    ["sampling", p.generation && Object.entries(p.generation).map(([k, v]) => `${k} ${JSON.stringify(v)}`).join(", ")],
  ];
  const all = [...lines, ["source", pair.source], ["target", pair.target], ["pairs of", pair.origin]];
  $("facts").replaceChildren(...all.filter(([, value]) => value).flatMap(([name, value]) => [
    el("dt", {}, name), el("dd", { dir: "auto" }, String(value))]));
  $("history").replaceChildren(...lived(pair.history));
}

const lived = (events) => events.map(({ time, who, what }) => el("li", {},
  el("time", { class: "soft" }, time.replace("T", " ").slice(0, 16)), " ", el("bdi", {}, who), ` ${what}`));

function showActions() {
  const edited = pair !== null && texts.edited;
  $("save").firstChild.textContent = edited ? "Save " : "Edit ";
  $("save").lastElementChild.textContent = edited ? "Ctrl ↵" : "e";
  $("save").classList.toggle("primary", edited);
  $("accept").disabled = edited || pair === null || (pair.status === null && !pair.model.caption && !pair.model.cot) || pair.status === "failed";
  $("undo").disabled = done.length === 0 && !pair?.verdict;
  $("previous").disabled = near.before.length === 0;
  $("next").disabled = near.after.length === 0;
}

// ---- moving

/** Whether the pair may be left: not with a text that was changed and not saved. */
function leave() {
  if (pair === null || !texts.edited) return true;
  toast("The text was changed: save it (Ctrl + Enter) or put it back (Esc).", "bad");
  return false;
}

async function step(way) {
  if (!leave()) return;
  const key = way > 0 ? near.after[0] : near.before.at(-1);
  if (key !== undefined) await open(key);
  else toast(way > 0 ? "That was the last pair of this list." : "This is the first pair of this list.");
}

async function nextSuspect() {
  if (!leave()) return;
  const found = await ask(address("/api/list", { ...list.query, show: "suspects", around: pair?.key ?? "", limit: 9 }));
  const at = found.place === null ? 0 : found.place - found.offset;
  const keys = found.rows.map((row) => row.key).filter((key) => key !== pair?.key);
  const key = found.rows.slice(at).map((row) => row.key).find((one) => one !== pair?.key) ?? keys[0];
  if (key === undefined) toast("No suspects are left.");
  else await open(key);
}

// ---- deciding

async function decide(action, more = {}, { stay = false } = {}) {
  const key = pair.key;
  let now;
  try {
    now = await ask(`/api/pair/${encodeURIComponent(key)}`,
      { action, revision: pair.revision, seen: pair.seen, ...more });
  } catch (failure) {
    if (failure.status !== 409) throw failure;
    await conflict(failure.body, more);
    return false;
  }
  known.set(key, Promise.resolve(now));
  if (action !== "undo" && action !== "relabel") done.push([key, action]);
  if (stay || near.after.length === 0) {
    show(now);
    await lookAround();
  } else {
    await open(near.after[0]);
  }
  later();
  return true;
}

/** Counts and the list follow once decisions pause, and at least every few seconds. */
let soon = 0, counted = 0;
function later() {
  clearTimeout(soon);
  soon = setTimeout(async () => {
    if (waiting > 0 && performance.now() - counted < LATEST) return later();
    counted = performance.now();
    await overview();
    return list.refresh();
  }, 300);
}

function accept() {
  if ($("accept").disabled) {
    toast(texts.edited ? "The text was changed: Ctrl + Enter saves it." : "There is no label to accept.", "bad");
    return undefined;
  }
  return decide("accept");
}

async function save() {
  if (!texts.edited) return $("caption").focus();
  document.activeElement?.blur(); // what is typed from now on is no part of this text
  const { caption, caption_cot } = texts.now;
  const captionChanged = caption !== texts.before.caption.trim();
  // A prompt that was written for another instruction goes, unless it was changed as well.
  const keep = !captionChanged || caption_cot !== texts.before.caption_cot.trim();
  if (await decide("edit", { caption: caption || null, caption_cot: keep ? caption_cot || null : null },
    { stay: captionChanged && !keep })) {
    if (captionChanged && !keep) toast("Saved. The prompt was written for the old instruction, and is gone.");
  }
}

async function undo() {
  const [key, action] = done.pop() ?? [pair.key, "review"];
  if (key !== pair.key) show(await ask(`/api/pair/${encodeURIComponent(key)}`));
  await decide(action === "swap" ? "swap" : "undo", {}, { stay: true });
  if (action === "swap") done.pop();
  toast("Taken back.");
}

function reject() {
  $("reason").value = "";
  for (const radio of document.querySelectorAll("#errors input")) radio.checked = false;
  document.querySelector("#severity input[value=major]").checked = true;
  $("rejecting").showModal();
  $("errors").focus();
}

function rejected() {
  $("rejecting").close();
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`)?.value ?? null;
  const more = { error: chosen("error"), severity: chosen("severity"), reason: $("reason").value.trim() || null };
  return act(() => decide("reject", more));
}

async function conflict(body, more) {
  known.clear();
  typed.length = 0;
  const yours = [more.caption, more.caption_cot].filter(Boolean);
  $("conflict-since").replaceChildren(...(body.since.length ? lived(body.since) : [el("li", {}, "its text or its images")]));
  $("conflict-yours").replaceChildren(...(yours.length
    ? [el("h3", {}, "Your text, to copy"), ...yours.map((text) => el("p", { dir: "auto", class: "yours" }, text))] : []));
  show(body.pair);
  $("conflict").showModal();
  await lookAround();
  later();
}

// ---- what others do meanwhile

async function news() {
  if (document.hidden || waiting) return;
  const said = await ask(address("/api/news", { version })).catch(() => null);
  if (said === null || said.version === version) return;
  version = said.version;
  const changed = new Set(said.keys);
  for (const key of known.keys()) if (said.all || changed.has(key)) known.delete(key);
  if (pair !== null && (said.all || changed.has(pair.key)) && !texts.edited) {
    act(async () => {
      const now = await fetched(pair.key);
      const { seen, relabelling, relabel_failed } = pair;
      if (now.key === pair.key && (now.seen !== seen || now.relabelling !== relabelling || now.relabel_failed !== relabel_failed)) show(now);
    });
  }
  later();
}

// ---- keys

const KEYS = [
  ["a", "accept", () => act(accept)],
  ["r", "reject: then 1–9 what, q w e how much, Enter", () => act(reject)],
  ["e", "change the text; Ctrl + Enter saves, Esc leaves", () => $("caption").focus()],
  ["c", "change the prompt", () => $("cot").focus()],
  ["x", "swap source and target", () => act(() => leave() && decide("swap", {}, { stay: true }))],
  ["l", "ask the model for a new label", () => act(() => !$("relabel").hidden && leave() && decide("relabel", {}, { stay: true }))],
  ["u", "take the last decision back", () => act(undo)],
  ["n", "next suspect", () => act(nextSuspect)],
  ["j", "next pair", () => act(() => step(1)), "ArrowDown"],
  ["k", "previous pair", () => act(() => step(-1)), "ArrowUp"],
  ["1", "slider", () => pictures.setMode("slider")],
  ["2", "side by side", () => pictures.setMode("side")],
  ["3", "blink", () => pictures.setMode("blink")],
  ["4", "difference", () => pictures.setMode("difference")],
  [" ", "the other picture", () => pictures.turn()],
  ["f", "in one frame, own files, frames of the video", () => pictures.nextView()],
  ["+", "zoom in", () => pictures.zoomBy(1.5)],
  ["-", "zoom out", () => pictures.zoomBy(1 / 1.5)],
  ["0", "fit", () => pictures.fitAgain()],
  ["/", "search", () => { drawer(true); $("search").focus(); }],
  ["g", "the list", () => { drawer(true); $("rows").focus(); }],
  ["m", "write metadata.csv", () => act(table)],
  ["t", "light or dark", () => theme()],
  ["?", "these keys", () => $("keys").showModal()],
];
const bound = new Map(KEYS.flatMap(([key, , work, other]) => [[key, work], ...(other ? [[other, work]] : [])]));

const fieldOf = (target) => target.closest("textarea, input:not([type=radio], [type=range]), select");

document.addEventListener("keydown", (event) => {
  const { key } = event, ctrlKey = event.ctrlKey || event.metaKey;
  const ours = ctrlKey ? ["a", "Enter"].includes(key) : bound.has(key) || key === "Enter" || key.length === 1;
  if (waiting > 0 && ours && !event.altKey && !fieldOf(event.target)) {
    event.preventDefault();
    typed.push({ key, ctrlKey });
  } else {
    pressed(event, event.target);
  }
});

function pressed(event, target) {
  const field = fieldOf(target);
  if ($("rejecting").open) return rejectingKey(event, target, field);
  if (document.querySelector("dialog[open]")) return undefined;
  if (event.key === "Escape") {
    if (field && pair && ["caption", "cot"].includes(field.id)) texts.show(pair);
    document.activeElement?.blur();
    drawer(false);
    return showActions();
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    return act(save);
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (target.matches("button, summary, input") && [" ", "Enter", "ArrowUp", "ArrowDown"].includes(event.key)) return undefined;
  const work = bound.get(event.key);
  if (!work || (pair === null && !["?", "/", "g", "t"].includes(event.key))) return undefined;
  event.preventDefault();
  return work();
}

function rejectingKey(event, target, field) {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    return target.id === "rejecting-cancel" ? $("rejecting").close() : rejected();
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const error = document.querySelector(`#errors input[data-key="${CSS.escape(event.key)}"]`);
  const severity = document.querySelector(`#severity input[data-key="${CSS.escape(event.key)}"]`);
  for (const radio of [error, severity]) if (radio) radio.checked = true;
  if (event.key === "t") $("reason").focus();
  if (error || severity || event.key === "t") event.preventDefault();
  return undefined;
}

// ---- the page itself

function drawer(wanted) {
  document.body.classList.toggle("with-list", wanted);
  $("drawer").setAttribute("aria-expanded", String(wanted));
}

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

async function table() {
  $("table").disabled = true;
  try {
    const { notes } = await ask("/api/table", {});
    toast(notes[0], "good");
  } finally {
    $("table").disabled = false;
  }
}

/** All labels held against each other anew, with those that verify has judged meanwhile. */
async function rescore() {
  await ask("/api/scores", {});
  known.clear();
  await list.set({});
  if (pair !== null && !texts.edited) show(await fetched(pair.key));
}

function radios(name, choices, keys) {
  return Object.entries(choices).map(([value, text], at) => el("label", {},
    el("input", { type: "radio", name, value, "data-key": keys[at] }), el("kbd", {}, keys[at]), el("span", {}, text)));
}

function begin() {
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  $("errors").append(...radios("error", ERRORS, "123456789"));
  $("errors").tabIndex = -1;
  $("severity").append(...radios("severity", SEVERITIES, "qwe"));
  $("keys-list").append(...KEYS.map(([key, what]) => el("p", {}, el("kbd", {}, key === " " ? "Space" : key), ` ${what}`)));
  const clicks = {
    accept: () => act(accept), reject: () => act(reject), save: () => act(save), undo: () => act(undo),
    swap: () => bound.get("x")(), relabel: () => bound.get("l")(), table: () => act(table),
    previous: () => act(() => step(-1)), next: () => act(() => step(1)), theme, help: () => $("keys").showModal(),
    drawer: () => drawer(!document.body.classList.contains("with-list")),
    "zoom-in": () => pictures.zoomBy(1.5), "zoom-out": () => pictures.zoomBy(1 / 1.5), "zoom-fit": () => pictures.fitAgain(),
    rescore: () => act(rescore), "rejecting-cancel": () => $("rejecting").close(), "rejecting-done": rejected,
  };
  for (const [id, work] of Object.entries(clicks)) $(id).addEventListener("click", work);
  for (const button of $("modes").children) button.addEventListener("click", () => pictures.setMode(button.dataset.mode));
  $("view").addEventListener("change", (event) => pictures.setView(event.target.value));
  pictures.setMode("slider");
  list.changed = () => act(async () => {
    await overview();
    if (pair !== null) await lookAround();
  });
  addEventListener("beforeunload", (event) => { if (pair && texts.edited) event.preventDefault(); });
  act(first);
  setInterval(news, NEWS);
}

/** The pair that the address names, else the worst one of what is left. */
async function first() {
  const named = decodeURIComponent(location.hash.slice(1));
  const [seen] = await Promise.all([overview(), list.refresh()]);
  if (list.total === 0) await list.set({ show: seen.counts.open ? "open" : "all" });
  const key = named || list.pages.get(0)?.[0]?.key;
  if (key === undefined) {
    $("key").textContent = "There is nothing to look at.";
    return;
  }
  await open(key).catch(() => (named ? open(list.pages.get(0)[0].key) : undefined));
  document.body.classList.add("ready");
}

begin();
