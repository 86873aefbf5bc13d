// The two pictures: slider, side by side, blink, difference; zoomed and moved together.

import { $, ask, el, percent } from "./dom.js";

const SIDES = ["source", "target"];
const BLINK = 700; // milliseconds
const MOST_ZOOM = 32;

export const pictureOf = (pair, side, view) =>
  `/picture/${encodeURIComponent(pair.key)}/${side}/${view}?v=${pair.stamp}`;

export class Pictures {
  constructor() {
    this.port = $("port");
    this.mode = "slider";
    this.view = "frame";
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.layers = SIDES.map((side) => {
      const image = el("img", { alt: "", draggable: "false", decoding: "async" });
      const regions = el("div", { class: "regions" });
      const layer = el("div", { class: "layer" }, image, regions);
      const failed = el("p", { class: "failed", hidden: true });
      return { side, image, regions, layer, failed, shot: el("div", { class: "shot" }, layer, failed) };
    });
    this.compare = el("before-after", { label: "drag, or use the arrow keys" }, this.layers.map((l) => l.shot));
    this.port.append(this.compare);
    for (const layer of this.layers) {
      layer.image.addEventListener("load", () => this.#fit());
      layer.image.addEventListener("error", () => this.#failed(layer));
    }
    new ResizeObserver(() => this.#fit()).observe(this.port);
    this.#listen();
  }

  show(pair) {
    this.pair = pair;
    this.measured = null;
    $("measured").textContent = "";
    this.#draw();
    if (this.mode === "difference") this.#measure();
  }

  setMode(mode) {
    this.mode = mode;
    this.port.dataset.mode = mode;
    for (const button of $("modes").children) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
    clearInterval(this.blinking);
    this.compare.value = mode === "blink" || mode === "difference" ? 0 : 50;
    if (mode === "blink" && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.blinking = setInterval(() => this.turn(), BLINK);
    }
    if (mode === "difference") this.#measure();
    this.#regions();
    requestAnimationFrame(() => this.#fit());
  }

  setView(view) {
    this.view = view;
    $("view").value = view;
    this.#draw();
  }

  nextView() {
    const views = [...$("view").options].filter((o) => !o.disabled).map((o) => o.value);
    this.setView(views[(views.indexOf(this.view) + 1) % views.length]);
  }

  /** The other picture in place of the one that is seen. */
  turn() {
    this.compare.value = this.compare.value > 50 ? 0 : 100;
  }

  zoomBy(factor, x = this.port.clientWidth / 2, y = this.port.clientHeight / 2) {
    const scale = Math.min(MOST_ZOOM, Math.max(1, this.zoom.scale * factor));
    const by = scale / this.zoom.scale;
    this.zoom = { scale, x: x - (x - this.zoom.x) * by, y: y - (y - this.zoom.y) * by };
    this.#move(0, 0);
  }

  fitAgain() {
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.#fit();
  }

  #draw() {
    const hasVideo = this.pair.has_video;
    const video = [...$("view").options].find((option) => option.value === "video");
    video.disabled = !hasVideo;
    const view = this.view === "video" && !hasVideo ? "frame" : this.view;
    for (const layer of this.layers) {
      layer.failed.hidden = true;
      layer.layer.hidden = false;
      layer.image.alt = layer.side === "source" ? "before the edit" : "after the edit";
      layer.image.src = pictureOf(this.pair, layer.side, view);
    }
    this.#regions();
  }

  async #failed(layer) {
    const at = layer.image.src;
    layer.layer.hidden = true;
    layer.failed.hidden = false;
    layer.failed.textContent = "This picture can’t be shown.";
    const said = await ask(new URL(at).pathname).catch((failure) => failure.body ?? {});
    if (layer.image.src === at && said.error) {
      layer.failed.textContent = [said.error, said.hint].filter(Boolean).join(" ");
    }
  }

  async #measure() {
    const pair = this.pair;
    if (this.measured) return this.#regions();
    $("measured").textContent = "Measuring …";
    const found = await ask(`/api/pair/${encodeURIComponent(pair.key)}/difference`).catch((failure) => {
      $("measured").textContent = failure.message;
    });
    if (found && pair === this.pair) {
      this.measured = found;
      this.#regions();
    }
  }

  #regions() {
    const shown = this.mode === "difference" && this.measured;
    for (const { regions } of this.layers) regions.replaceChildren();
    if (!shown) {
      if (this.mode !== "difference") $("measured").textContent = "";
      return;
    }
    const { regions, changed, identical, view } = this.measured;
    const says = identical ? "The pictures are identical."
      : `${percent(changed, 1)} of the area changed` + (view ? `, seen another way (${view})` : "") + ". ";
    const named = regions.slice(0, 4).map((region, at) => {
      const colours = region.before === region.after ? region.after : `${region.before} → ${region.after}`;
      return `${at + 1}: ${percent(region.share, 1)}, ${colours}`;
    });
    $("measured").textContent = says + named.join(" · ");
    this.layers[1].regions.append(...regions.map((region, at) => {
      const box = el("div", { class: "region" }, el("span", {}, String(at + 1)));
      const [left, top, right, bottom] = region.box;
      box.style.left = `${100 * left}%`;
      box.style.top = `${100 * top}%`;
      box.style.width = `${100 * (right - left)}%`;
      box.style.height = `${100 * (bottom - top)}%`;
      return box;
    }));
  }

  /** Each picture as large as its place allows, then zoomed and moved like the other one. */
  #fit() {
    for (const { image, layer, shot } of this.layers) {
      const { naturalWidth: width, naturalHeight: height } = image;
      if (!width) continue;
      const scale = Math.min(shot.clientWidth / width, shot.clientHeight / height);
      layer.style.width = `${width * scale}px`;
      layer.style.height = `${height * scale}px`;
      layer.style.left = `${(shot.clientWidth - width * scale) / 2}px`;
      layer.style.top = `${(shot.clientHeight - height * scale) / 2}px`;
      image.classList.toggle("dots", scale * this.zoom.scale * devicePixelRatio > 3);
    }
    this.#move(0, 0);
  }

  #move(dx, dy) {
    const { scale } = this.zoom;
    const { clientWidth: width, clientHeight: height } = this.layers[0].shot;
    const within = (at, room) => Math.min(0, Math.max(room * (1 - scale), at));
    this.zoom.x = within(this.zoom.x + dx, width);
    this.zoom.y = within(this.zoom.y + dy, height);
    for (const { layer } of this.layers) {
      // From the corner of the place, not of the picture: both are moved alike.
      layer.style.transformOrigin = `${-parseFloat(layer.style.left || 0)}px ${-parseFloat(layer.style.top || 0)}px`;
      layer.style.transform = `translate(${this.zoom.x}px, ${this.zoom.y}px) scale(${scale})`;
    }
    this.port.classList.toggle("zoomed", scale > 1);
    $("zoom-fit").textContent = scale > 1 ? `${scale.toFixed(1)} ×` : "Fit";
  }

  #listen() {
    const port = this.port;
    port.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = this.#place(event);
      this.zoomBy(Math.exp(-event.deltaY / 300), box.x, box.y);
    }, { passive: false });
    // One finger or the mouse moves what is zoomed, two fingers zoom; else the slider has it.
    const down = new Map();
    port.addEventListener("pointerdown", (event) => {
      down.set(event.pointerId, event);
      const onHandle = event.target.closest(".handle");
      if (down.size > 1 || (!onHandle && (this.zoom.scale > 1 || this.mode !== "slider"))) {
        event.stopPropagation();
        port.setPointerCapture(event.pointerId);
      }
    }, { capture: true });
    port.addEventListener("pointermove", (event) => {
      const before = down.get(event.pointerId);
      if (!before || !port.hasPointerCapture(event.pointerId)) return;
      down.set(event.pointerId, event);
      if (down.size === 1) {
        this.#move(event.clientX - before.clientX, event.clientY - before.clientY);
        return;
      }
      const other = [...down.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const middle = this.#place(event, other);
      this.zoomBy(apart(event) / Math.max(1, apart(before)), middle.x, middle.y);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      port.addEventListener(name, (event) => down.delete(event.pointerId), { capture: true });
    }
    port.addEventListener("dblclick", () => this.fitAgain());
  }

  /** Where an event is in the picture's place, or the middle between two. */
  #place(event, other = event) {
    const shot = event.target.closest?.(".shot") ?? this.layers[0].shot;
    const box = shot.getBoundingClientRect();
    return {
      x: (event.clientX + other.clientX) / 2 - box.left,
      y: (event.clientY + other.clientY) / 2 - box.top,
    };
  }
}
