// Regions on the image: drawn, moved and resized with pointer or keyboard, and saved on the server.
import { ask } from "./api.js";
import { byId, el, setText, svg } from "./dom.js";
import { visible } from "./format.js";
import { mayWrite } from "./rights.js";
import { boxOf, handles, lineOf, moved, resized, rounded } from "./region_shapes.js";

const SAVE_AFTER_MS = 400;
const SAVE_TIMEOUT_MS = 30_000;

export class Regions extends EventTarget {
  constructor(dataId, picture) {
    super();
    this.path = `/rheed/stream/${dataId}/regions`;
    this.picture = picture;
    this.overlay = byId("overlay");
    this.own = [];
    this.found = [];
    this.columns = {};
    this.mode = null;
    this.edits = 0;
    this.saved = Promise.resolve();
    picture.addEventListener("size", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.overlay);
    for (const kind of ["box", "line"]) byId(`draw-${kind}`).addEventListener("click", (event) => this.choose(kind, event));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.mode) this.setMode(null);
    });
    byId("stage").addEventListener("pointerdown", (event) => this.begin(event));
    this.overlay.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Applies the regions of the server, unless a region is being dragged or saved. */
  set({ regions, detected_regions: found, columns }) {
    if (this.drag || this.saving) return;
    this.columns = columns ?? this.columns;
    const content = JSON.stringify([regions, found, this.columns]);
    if (content === this.content) return;
    this.content = content;
    [this.own, this.found] = [regions ?? [], found ?? []];
    this.draw();
    this.dispatchEvent(new Event("change"));
  }

  /** By pointer: the next drag draws the region. By keyboard: a region is created in the middle of the image. */
  choose(kind, { detail: clicks }) {
    if (clicks > 0) this.setMode(this.mode === kind ? null : kind);
    else this.placeInMiddle(kind);
  }

  placeInMiddle(kind) {
    const { width, height } = this.picture.size;
    const name = this.freeName(kind);
    const [from, to] = kind === "box" ? [[0.4, 0.4], [0.6, 0.6]] : [[0.3, 0.5], [0.7, 0.5]];
    const at = ([x, y]) => [x * width, y * height];
    this.setMode(null);
    this.put((kind === "box" ? boxOf : lineOf)(name, at(from), at(to)));
    this.draw();
    this.save();
    this.focus(name);
  }

  focus(name) {
    this.overlay.querySelector(`g[data-name="${CSS.escape(name)}"]`)?.focus();
  }

  setMode(mode) {
    this.mode = mode;
    byId("draw-box").setAttribute("aria-pressed", String(mode === "box"));
    byId("draw-line").setAttribute("aria-pressed", String(mode === "line"));
    byId("stage").classList.toggle("drawing", mode !== null);
    setText(byId("region-help"), mode ? `Drag over the picture to draw a ${mode}. Escape cancels.` : "");
  }

  /** Loads the current positions: tracked regions move without a message of the feed. */
  async refresh() {
    const { edits, savedEdit } = this;
    const reply = await ask(this.path).catch(() => null);
    if (reply && edits === this.edits && savedEdit === this.savedEdit) this.set(reply);
  }

  // ---- drawing

  draw() {
    const { width, height } = this.picture.size;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const focused = document.activeElement?.closest?.("#overlay g")?.dataset.name;
    const names = new Set(this.own.map(({ name }) => name));
    const shown = [...this.found.filter(({ name }) => !names.has(name)).map((region) => [region, false]), ...this.own.map((region) => [region, true])];
    this.overlay.replaceChildren(...shown.map(([region, own]) => this.shape(region, own)));
    if (focused) this.focus(focused);
  }

  /** Frame pixels per screen pixel, so that text and handles keep their size. */
  get scale() {
    return this.picture.size.width / Math.max(1, this.overlay.clientWidth);
  }

  shape(region, own) {
    const { scale } = this;
    const movable = mayWrite() && (own || region.name === "specular");
    const group = svg("g", { class: own ? "own" : "found", "data-name": region.name, tabindex: movable ? "0" : null, role: movable ? "button" : "img", "aria-label": spoken(region, own) });
    const attributes = region.type === "line"
      ? ["line", { x1: region.x0, y1: region.y0, x2: region.x1, y2: region.y1 }]
      : ["rect", { x: region.x - region.width / 2, y: region.y - region.height / 2, width: region.width, height: region.height, rx: 2 * scale }];
    group.append(svg(attributes[0], { ...attributes[1], class: "shape" }));
    if (movable) group.append(svg(attributes[0], { ...attributes[1], class: "grab" }));
    const [x, y] = region.type === "line" ? [region.x0, region.y0] : [region.x - region.width / 2, region.y - region.height / 2];
    // In full screen the names can be read from three metres.
    const letter = document.fullscreenElement ? 22 : 12;
    const below = y < (letter + 6) * scale ? (letter + 4) * scale + (region.height ?? 0) : -5 * scale;
    group.append(svg("text", { x: x + scale, y: y + below, "font-size": letter * scale, "stroke-width": 3 * scale }, visible(region.name)));
    if (own && movable) group.append(...handles(region).map(([gx, gy, part]) => svg("rect", { class: "handle", "data-part": part, x: gx - 4 * scale, y: gy - 4 * scale, width: 8 * scale, height: 8 * scale })));
    return group;
  }

  // ---- pointer

  position(event) {
    const box = this.overlay.getBoundingClientRect();
    const { width, height } = this.picture.size;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  }

  begin(event) {
    if (event.button !== 0) return;
    const name = event.target.closest?.("g")?.dataset.name;
    const at = this.position(event);
    if (this.mode) this.drag = { created: this.mode, from: at, name: this.freeName(this.mode) };
    else if (name && event.target.matches(".grab, .handle")) {
      this.adopt(name);
      this.drag = { name, from: at, before: this.find(name), part: event.target.dataset.part ?? null };
    } else return;
    event.preventDefault();
    byId("stage").setPointerCapture(event.pointerId);
    const move = (next) => this.follow(next);
    byId("stage").addEventListener("pointermove", move);
    const end = () => {
      byId("stage").removeEventListener("pointermove", move);
      this.finish();
    };
    for (const kind of ["pointerup", "pointercancel"]) byId("stage").addEventListener(kind, end, { once: true });
  }

  follow(event) {
    const { drag } = this;
    if (!drag) return;
    const at = this.position(event);
    const by = [at[0] - drag.from[0], at[1] - drag.from[1]];
    drag.far = drag.far || Math.hypot(...by) > 3 * this.scale;
    if (!drag.far) return;
    if (drag.created) this.put((drag.created === "box" ? boxOf : lineOf)(drag.name, drag.from, at));
    else this.put(drag.part ? resized(drag.before, drag.part, by) : moved(drag.before, by));
    this.draw();
  }

  finish() {
    const { drag } = this;
    this.drag = null;
    if (!drag?.far) return;
    if (drag.created) this.setMode(null);
    this.save();
    this.focus(drag.name);
  }

  // ---- keys: arrows move, Shift+arrows resize, Delete removes

  onKey(event) {
    const name = event.target.closest("g")?.dataset.name;
    if (!name) return;
    const step = event.ctrlKey ? 10 : 1;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (by) {
      event.preventDefault();
      event.stopPropagation();
      this.adopt(name);
      const region = this.find(name);
      this.put(event.shiftKey ? resized(region, "end", by) : moved(region, by));
    } else if (["Delete", "Backspace"].includes(event.key) && this.find(name)) {
      event.preventDefault();
      this.remove(name);
      return;
    } else return;
    this.draw();
    this.save();
  }

  remove(name) {
    this.own = this.own.filter((region) => region.name !== name);
    setText(byId("region-help"), `Region ${visible(name)} was removed.`);
    byId("draw-box").focus();
    this.draw();
    this.save();
  }

  rename(name, wanted) {
    if (wanted === name || !this.find(name)) return;
    this.own = this.own.map((region) => (region.name === name ? { ...region, name: wanted } : region));
    this.draw();
    this.save();
    this.focus(wanted);
  }

  /** The names of all regions, also of those that the analysis has found. */
  get names() {
    return [...this.own, ...this.found].map(({ name }) => name);
  }

  /** True if the user has drawn it, and may change it. */
  isOwn(name) {
    return mayWrite() && this.find(name) !== undefined;
  }

  // ---- saving

  find(name) {
    return this.own.find((region) => region.name === name);
  }

  /** A detected region becomes a user's region when the user moves it. */
  adopt(name) {
    const found = this.found.find((region) => region.name === name);
    if (!this.find(name) && found) this.own = [...this.own, { ...found, tracked: true }];
  }

  put(region) {
    const whole = rounded(region, this.picture.size);
    this.own = [...this.own.filter(({ name }) => name !== whole.name), whole];
  }

  freeName(kind) {
    let number = 1;
    while ([...this.own, ...this.found].some(({ name }) => name === `${kind}${number}`)) number += 1;
    return `${kind}${number}`;
  }

  /** One request at a time: two at once could arrive in the wrong order. */
  save() {
    clearTimeout(this.timer);
    this.edits += 1;
    this.saving = true;
    this.timer = setTimeout(() => {
      this.saved = this.saved.then(() => this.sendSave(), () => this.sendSave());
    }, SAVE_AFTER_MS);
  }

  async sendSave() {
    const edit = this.edits;
    if (edit === this.savedEdit) return;
    const signal = AbortSignal.timeout(SAVE_TIMEOUT_MS); // a request that hangs must not block later ones
    const [saved, error] = await ask(this.path, { method: "PUT", body: { regions: this.own }, signal }).then((reply) => [reply], (failure) => [null, failure]);
    // The user edited again meanwhile: a new request will follow, and this reply would undo the edit.
    if (edit !== this.edits) return;
    this.saving = false;
    this.savedEdit = saved ? edit : null;
    if (saved) this.set({ detected_regions: this.found, regions: this.own, ...saved });
    setText(byId("region-help"), saved ? "Saved. Its trace is being computed back to the first frame." : `The regions were not saved: ${error.message}`);
    this.dispatchEvent(new Event("change"));
  }
}

function spoken(region, own) {
  const where = region.type === "line"
    ? `line from ${Math.round(region.x0)}, ${Math.round(region.y0)} to ${Math.round(region.x1)}, ${Math.round(region.y1)}`
    : `box at ${Math.round(region.x)}, ${Math.round(region.y)}, ${Math.round(region.width)} by ${Math.round(region.height)} pixels`;
  const keys = !mayWrite() ? "" : own ? " Arrow keys move it, Shift and arrow keys resize it, F2 renames it, Delete removes it." : region.name === "specular" ? " Found by the analysis. Arrow keys move it." : " Found by the analysis.";
  return `${visible(region.name)}: ${where}.${keys}`;
}

/** Options of the selection of the waterfall's line. */
export function lineOptions(own) {
  return [["streaks", "Streaks"], ...own.filter(({ type }) => type === "line").map(({ name }) => [name, visible(name)])].map(([value, text]) => el("option", { value }, text));
}
