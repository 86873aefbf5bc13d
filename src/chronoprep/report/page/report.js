/* The report's own: light or dark, and what the gallery shows. */

const root = document.documentElement;
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const cards = [...document.querySelectorAll(".card")];
const search = document.getElementById("search");
const show = document.getElementById("show");

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let seen = 0;
  for (const card of cards) {
    const text = card.textContent.toLowerCase();
    const kinds = card.dataset.is.split(" ");
    const fits = words.every((word) => text.includes(word)) && (!show.value || kinds.includes(show.value));
    card.hidden = !fits;
    seen += fits;
  }
  document.getElementById("none").hidden = seen > 0;
}

search.addEventListener("input", filter);
show.addEventListener("change", filter);
