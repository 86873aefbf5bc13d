// Small helpers: elements without markup, and requests to this page's own server.

export const $ = (id) => document.getElementById(id);

/** An element; text stays text, whatever it holds. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export class Failure extends Error {
  constructor(status, body) {
    super(body.error ?? `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** What the server says; with a body, it is told something. */
export async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Failure(0, { error: "The server does not answer. Start chronoprep review again." });
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Failure(answer.status, said);
  return said;
}

export function toast(text, kind = "") {
  const shown = el("p", { class: `toast ${kind}` }, text);
  $("toasts").append(shown);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(() => shown.remove(), kind === "bad" ? 8000 : 3200);
}

export const address = (path, values) => {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return `${path}?${new URLSearchParams(given)}`;
};

export const count = (number, word) =>
  `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
