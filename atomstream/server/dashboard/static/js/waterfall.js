// Waterfall: the line profile over time, on the axis of the charts. Rows of the server plus those of the feed.
import { askBytes } from "./api.js";
import { byId } from "./dom.js";
import { LEFT, RIGHT } from "./charts.js";
import { lineOptions } from "./regions.js";
import { colour } from "./theme.js";

const RELOAD_MS = 20000;
const KEPT = 6000;
const HELD_ROWS = 5;
const REDRAW_MS = 200; // drawing all columns costs more than the rest of the page; a column is tenths of a second
const LAST_ROWS_MS = 1000;

export class Waterfall {
  constructor(dataId, view) {
    this.path = `/rheed/stream/${dataId}/profiles`;
    this.view = view;
    this.canvas = byId("waterfall");
    this.select = byId("waterfall-line");
    this.line = "streaks";
    this.old = null;
    this.fresh = [];
    this.due = Infinity;
    this.setLines([]);
    this.select.addEventListener("change", () => {
      this.line = this.select.value;
      [this.old, this.fresh] = [null, []];
      this.load();
    });
    view.addEventListener("change", () => this.soon());
    new ResizeObserver(() => this.soon()).observe(this.canvas);
  }

  setLines(own) {
    const options = lineOptions(own);
    const shown = options.map(({ value }) => value).join();
    if (shown === this.shown) return;
    this.shown = shown;
    this.select.replaceChildren(...options);
    if (!options.some(({ value }) => value === this.line)) this.line = "streaks";
    this.select.value = this.line;
  }

  async load() {
    this.loadedAt = performance.now();
    const { line } = this;
    try {
      const { bytes, headers } = await askBytes(`${this.path}?line=${encodeURIComponent(line)}`);
      const number = (name) => Number(headers.get(`Atomstream-${name}`));
      if (line !== this.line) return;
      const [rows, columns, start, step] = ["Rows", "Columns", "Start-S", "Step-S"].map(number);
      this.old = { rows, columns, start, step, values: new Float32Array(bytes) };
      this.fresh = this.fresh.filter(({ time }) => time > start + rows * step);
    } catch (error) {
      if (error.status !== 404 && error.status !== 401) console.warn(`waterfall: ${error.message}`);
    }
    this.soon();
  }

  /** Adds the newest profile of a batch; it covers the time since the batch before. */
  add(time, profile, lines) {
    const values = this.line === "streaks" ? profile : lines?.[this.line];
    if (!values?.length) return;
    this.fresh.push({ time, values });
    if (this.fresh.length > KEPT || performance.now() - (this.loadedAt ?? 0) > RELOAD_MS) this.load();
    // A range that follows is drawn when it moves, which is soon; this is for the rows that come after its last move.
    else this.soon(this.view.follow ? LAST_ROWS_MS : REDRAW_MS);
  }

  /** Draws at the next screen refresh that is at least `each` ms after the last drawing. */
  soon(each = REDRAW_MS) {
    const due = Math.max(performance.now(), (this.drawnAt ?? -Infinity) + each);
    if (this.due <= due) return;
    this.due = due;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => requestAnimationFrame(() => {
      this.due = Infinity;
      this.drawnAt = performance.now();
      this.draw();
    }), due - performance.now());
  }

  /** The profile at a time; null if there is none. */
  at(time) {
    const { old, fresh } = this;
    if (old && time >= old.start && time < old.start + old.rows * old.step) {
      return this.row(Math.min(old.rows - 1, Math.floor((time - old.start) / old.step)));
    }
    let [low, high] = [0, fresh.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (fresh[middle].time < time) low = middle + 1;
      else high = middle;
    }
    if (low === fresh.length || (low === 0 && time < fresh[0].time - 2)) return null;
    return fresh[low].time - time > 5 ? null : fresh[low].values;
  }

  /** A row of the server; a row without a result shows the one before. */
  row(number) {
    const { columns, values } = this.old;
    for (let row = number; row >= Math.max(0, number - HELD_ROWS); row--) {
      const found = values.subarray(row * columns, (row + 1) * columns);
      if (Number.isFinite(found[columns >> 1])) return found;
    }
    return null;
  }

  draw() {
    const ratio = Math.min(2, devicePixelRatio);
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    context.fillStyle = colour("panel");
    context.fillRect(0, 0, width, height);
    const [x0, x1] = [Math.round(LEFT * ratio), width - Math.round(RIGHT * ratio)];
    if (x1 - x0 < 4) return;
    const columns = Array.from({ length: x1 - x0 }, (_, x) => this.at(this.view.from + ((x + 0.5) / (x1 - x0)) * (this.view.to - this.view.from)));
    this.canvas.dataset.columns = String(columns.filter(Boolean).length);
    const sample = columns.find(Boolean);
    if (sample) {
      context.putImageData(paint(context, columns, height, limits(columns)), x0, 0);
      this.label(context, ratio, height, sample.length);
    }
  }

  label(context, ratio, height, length) {
    context.fillStyle = colour("muted");
    context.font = `${11 * ratio}px Inter, system-ui, sans-serif`;
    context.textAlign = "right";
    const right = (LEFT - 6) * ratio;
    context.fillText(`${length} px`, right, 11 * ratio);
    context.fillText("0", right, height - 3 * ratio);
  }
}

/** Limits of the colour scale: the 2nd and 99.5th percentile, so that single bright pixels do not darken the rest. Square root, because half orders are weak. */
export function limits(columns) {
  const some = [];
  const step = Math.max(1, Math.floor(columns.length / 60));
  for (let k = 0; k < columns.length; k += step) {
    const values = columns[k];
    if (values) for (let y = 0; y < values.length; y += 3) if (Number.isFinite(values[y])) some.push(values[y]);
  }
  some.sort((a, b) => a - b);
  return [some[Math.floor(some.length * 0.02)] ?? 0, some[Math.floor(some.length * 0.995)] ?? 1];
}

export function paint(context, columns, height, [low, high]) {
  const image = context.createImageData(columns.length, height);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 1 / Math.max(1e-9, high - low);
  const [r, g, b] = rgb(colour("ground"));
  pixels.fill((0xff000000 | (b << 16) | (g << 8) | r) >>> 0);
  for (let x = 0; x < columns.length; x++) {
    const values = columns[x];
    if (!values) continue;
    for (let y = 0; y < height; y++) {
      const value = values[Math.floor(((height - 1 - y) / height) * values.length)];
      pixels[y * columns.length + x] = SHADES[Math.round(255 * Math.sqrt(Math.max(0, Math.min(1, (value - low) * scale))))];
    }
  }
  return image;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

/** Black over blue-green to pale; lightness rises evenly with the value. */
const SHADES = Uint32Array.from({ length: 256 }, (_, level) => {
  const at = level / 255;
  const stops = [[6, 9, 14], [18, 52, 78], [28, 116, 117], [110, 176, 120], [240, 236, 190]];
  const place = Math.min(3.999, at * 4);
  const [a, b] = [stops[Math.floor(place)], stops[Math.floor(place) + 1]];
  const [r, g, blue] = a.map((value, k) => Math.round(value + (b[k] - value) * (place - Math.floor(place))));
  return (0xff000000 | (blue << 16) | (g << 8) | r) >>> 0;
});
