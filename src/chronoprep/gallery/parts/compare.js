/* <before-after label="what is shown"><img …the source><img …the target></before-after>

   A slider between two pictures of one size: by mouse, touch and keyboard. Its `value`, from 0 to
   100, is the share of the source that is seen, in per cent; an `input` event tells of each change.
   Styles are set through the object model, which a strict Content-Security-Policy allows. */
"use strict";

class BeforeAfter extends HTMLElement {
  connectedCallback() {
    if (this.handle) return;
    this.handle = document.createElement("div");
    this.handle.className = "handle";
    const label = this.getAttribute("label");
    for (const [name, value] of Object.entries({
      role: "slider",
      tabindex: "0",
      "aria-label": label ? `Before and after: ${label}` : "Before and after",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-orientation": "horizontal",
    })) {
      this.handle.setAttribute(name, value);
    }
    this.sides = ["before", "after"].map((name) => {
      const side = document.createElement("span");
      side.className = `side ${name}`;
      side.textContent = name;
      side.setAttribute("aria-hidden", "true");
      return side;
    });
    this.append(this.handle, ...this.sides);
    this.classList.add("ready");
    this.value = 50;
    this.addEventListener("pointerdown", (event) => this.#grab(event));
    this.addEventListener("pointermove", (event) => {
      if (this.hasPointerCapture(event.pointerId)) this.#follow(event);
    });
    this.addEventListener("dblclick", () => this.#set(50));
    this.handle.addEventListener("keydown", (event) => this.#key(event));
  }

  get value() {
    return this.at;
  }

  set value(at) {
    this.at = Math.min(100, Math.max(0, at));
    this.style.setProperty("--at", `${this.at}%`);
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.at)));
    this.handle.setAttribute("aria-valuetext", `${Math.round(this.at)} % before`);
    this.sides[0].classList.toggle("gone", this.at < 15);
    this.sides[1].classList.toggle("gone", this.at > 85);
  }

  #set(at) {
    this.value = at;
    this.dispatchEvent(new Event("input", { bubbles: true }));
  }

  #grab(event) {
    if (event.button !== 0) return;
    this.setPointerCapture(event.pointerId);
    this.handle.focus({ preventScroll: true, focusVisible: false });
    event.preventDefault();
    this.#follow(event);
  }

  #follow(event) {
    const box = this.getBoundingClientRect();
    this.#set((100 * (event.clientX - box.left)) / box.width);
  }

  #key(event) {
    const step = event.shiftKey ? 10 : 2;
    const to = {
      ArrowLeft: this.at - step,
      ArrowDown: this.at - step,
      ArrowRight: this.at + step,
      ArrowUp: this.at + step,
      PageDown: this.at - 20,
      PageUp: this.at + 20,
      Home: 0,
      End: 100,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#set(to);
  }
}

customElements.define("before-after", BeforeAfter);
