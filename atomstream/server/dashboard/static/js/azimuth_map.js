// The profile along a line over the azimuth of a rotating sample, in its last turn: 0° to 360° from left to right.
import { askBytes } from "./api.js";
import { LEFT, RIGHT } from "./charts.js";
import { colour } from "./theme.js";
import { limits, paint } from "./waterfall.js";

const FOOT = 22;

export class AzimuthMap {
  constructor(canvas, path) {
    Object.assign(this, { canvas, path, rows: [], marks: [] });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** `marks`: azimuths of the views in degrees with their names. */
  async load(line, time, marks) {
    const query = new URLSearchParams({ line, ...(time === null ? {} : { time: String(time) }) });
    const { bytes, headers } = await askBytes(`${this.path}?${query}`);
    const [count, columns] = ["Rows", "Columns"].map((name) => Number(headers.get(`Atomstream-${name}`)));
    const values = new Float32Array(bytes);
    this.rows = Array.from({ length: count }, (_, k) => values.subarray(k * columns, (k + 1) * columns)).map((row) => (Number.isFinite(row[columns >> 1]) ? row : null));
    this.marks = marks;
    this.draw();
    return this.rows.filter(Boolean).length;
  }

  draw() {
    const ratio = Math.min(2, devicePixelRatio);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((size) => Math.round(size * ratio));
    if (!width || !height) return;
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const [x0, x1, bottom] = [LEFT * ratio, width - RIGHT * ratio, height - FOOT * ratio];
    this.canvas.dataset.azimuths = String(this.rows.filter(Boolean).length);
    const some = this.rows.find(Boolean);
    if (x1 - x0 < 4 || !some) return;
    const columns = Array.from({ length: Math.round(x1 - x0) }, (_, x) => this.rows[Math.min(this.rows.length - 1, Math.floor(((x + 0.5) / (x1 - x0)) * this.rows.length))]);
    context.putImageData(paint(context, columns, Math.round(bottom), limits(columns)), Math.round(x0), 0);
    context.fillStyle = colour("muted");
    context.font = `${12 * ratio}px Inter, system-ui, sans-serif`;
    context.textAlign = "center";
    for (const degrees of [0, 90, 180, 270, 360]) context.fillText(`${degrees}°`, x0 + (degrees / 360) * (x1 - x0), height - 5 * ratio);
    context.textAlign = "right";
    context.fillText(`${some.length} px`, x0 - 6 * ratio, 12 * ratio);
    context.fillText("0", x0 - 6 * ratio, bottom - 2 * ratio);
    context.textAlign = "left";
    context.fillStyle = context.strokeStyle = colour("rate");
    context.lineWidth = 1.5 * ratio;
    context.setLineDash([4 * ratio, 3 * ratio]);
    for (const { angle, name } of this.marks) {
      const x = x0 + ((((angle % 360) + 360) % 360) / 360) * (x1 - x0);
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, bottom);
      context.stroke();
      context.fillText(name, x + 4 * ratio, 13 * ratio);
    }
  }
}
