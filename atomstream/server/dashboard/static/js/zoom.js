// Zoom and pan of the picture: by wheel, two fingers, drag, double click and keys; stored by the browser.
import { byId, isTyping, setHidden, setText } from "./dom.js";
import { brief } from "./format.js";
import { loadChoices, saveChoices } from "./stored_choices.js";

const MOST = 16;
const STEP = 1.4;
const PAN = 0.15;

/** `scale` 1 shows the whole picture; `x`, `y` (0 to 1) is the place in the picture that is in the middle of the stage. */
const WHOLE = { scale: 1, x: 0.5, y: 0.5 };

export class Zoom {
  /** `mayDrag(event)` is false where a drag changes a region. */
  constructor(mayDrag) {
    this.stage = byId("stage");
    this.film = byId("film");
    this.mayDrag = mayDrag;
    this.at = loadChoices("zoom", WHOLE);
    this.pointers = new Map();
    this.stage.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.begin(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) this.stage.addEventListener(kind, (event) => this.end(event));
    this.stage.addEventListener("dblclick", (event) => this.onDoubleClick(event));
    this.stage.addEventListener("keydown", (event) => this.onKey(event));
    byId("zoom-in").addEventListener("click", () => this.by(STEP));
    byId("zoom-out").addEventListener("click", () => this.by(1 / STEP));
    for (const id of ["zoom-whole", "zoom-fit"]) byId(id).addEventListener("click", () => this.set(WHOLE));
    this.set(this.at);
  }

  /** Shows that place, as far as the picture covers the whole stage. */
  set({ scale, x, y }) {
    const whole = Math.min(MOST, Math.max(1, scale));
    const half = 0.5 / whole;
    const inside = (share) => Math.min(1 - half, Math.max(half, share));
    this.at = { scale: whole, x: inside(x), y: inside(y) };
    saveChoices("zoom", this.at);
    const percent = (share) => `${(100 * share).toFixed(4)}%`;
    // The element is made larger, not transformed with CSS, so lines and letters of the regions keep their size.
    Object.assign(this.film.style, {
      width: percent(whole),
      height: percent(whole),
      left: percent(0.5 - this.at.x * whole),
      top: percent(0.5 - this.at.y * whole),
    });
    this.stage.classList.toggle("zoomed", whole > 1);
    this.stage.dataset.zoom = brief(whole, 3);
    this.film.classList.toggle("near", whole >= 3);
    setHidden(byId("zoom-whole"), whole === 1);
    setText(byId("zoom-whole"), `${brief(whole, 2)}× · Fit`);
    setText(byId("zoom-now"), `${brief(whole, 2)}×`);
  }

  /** Zooms by a factor about a place of the screen, or the middle of the stage. */
  by(factor, clientX = null, clientY = null) {
    const box = this.stage.getBoundingClientRect();
    const [u, v] = clientX === null ? [0, 0] : [(clientX - box.left) / box.width - 0.5, (clientY - box.top) / box.height - 0.5];
    const { scale, x, y } = this.at;
    const next = Math.min(MOST, Math.max(1, scale * factor));
    // The place under the pointer stays where it is.
    this.set({ scale: next, x: x + u / scale - u / next, y: y + v / scale - v / next });
  }

  move(dx, dy) {
    this.set({ ...this.at, x: this.at.x + dx / this.at.scale, y: this.at.y + dy / this.at.scale });
  }

  onWheel(event) {
    // At the whole picture, a turn towards the user scrolls the page as everywhere else.
    if (event.deltaY === 0 || event.shiftKey || (this.at.scale === 1 && event.deltaY > 0)) return;
    event.preventDefault();
    this.by(Math.exp(-Math.max(-0.5, Math.min(0.5, event.deltaY / 300))), event.clientX, event.clientY);
  }

  begin(event) {
    if (event.button !== 0 || event.target.closest("button") || !this.mayDrag(event)) return;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.at.scale > 1 || this.pointers.size > 1) this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const box = this.stage.getBoundingClientRect();
    const now = [event.clientX, event.clientY];
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.pointers.set(event.pointerId, now);
    if (other) {
      const apart = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
      this.by(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.at.scale > 1) this.move((before[0] - now[0]) / box.width, (before[1] - now[1]) / box.height);
  }

  end(event) {
    this.pointers.delete(event.pointerId);
  }

  onDoubleClick(event) {
    if (event.target.closest("button, g") || !this.mayDrag(event)) return;
    if (this.at.scale > 1) this.set(WHOLE);
    else this.by(2.5, event.clientX, event.clientY);
  }

  onKey(event) {
    if (isTyping(event)) return;
    const arrows = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] }[event.key];
    // Arrow keys belong to the region that has the focus; without zoom the page scrolls by them.
    const act = arrows && event.target === this.stage && this.at.scale > 1
      ? () => this.move(...arrows)
      : { "+": () => this.by(STEP), "=": () => this.by(STEP), "-": () => this.by(1 / STEP), 0: () => this.set(WHOLE) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
