// One chart of any number of curves: over time on the axis of the charts, or over another quantity.
import { LEFT, RIGHT } from "./charts.js";
import { el, isTyping, setHidden, setText } from "./dom.js";
import { axisTimes, brief, duration, TIME_STEPS } from "./format.js";
import { colour } from "./theme.js";

const uPlot = window.uPlot;
const HEIGHT = 260;
const DASHES = [[], [7, 4], [2, 3]];
const UNITS = { spectrum: "/s", profile: "px" };

export class CurveChart {
  constructor(box, view) {
    Object.assign(this, { box, view, plot: null, shape: "" });
    this.nothing = el("p", { class: "nothing", hidden: true });
    box.append(this.nothing);
    box.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.resize()).observe(box);
  }

  /**
   * `x` and the `y` of each of the `curves` are of one length. `kind` "time" has the axis of the charts; others begin at 0
   * and end at `limit`, until the user zooms. `marks`: lines at an x with a text.
   */
  draw(drawn) {
    const { curves, x, kind, log, why } = drawn;
    this.drawn = drawn;
    const shape = JSON.stringify([kind, log, curves.map(({ name, place }) => [name, place])]);
    if (shape !== this.shape || !this.plot) {
      if (!this.shape.startsWith(`["${kind}"`)) this.range = null;
      this.shape = shape;
      this.rebuild();
    }
    // A logarithm has no zero: those places are left out.
    const shown = (values) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
    this.plot.setData([x, ...curves.map(({ y }) => shown(y))], false);
    this.move();
    const some = curves.some(({ y }) => y.some((value) => value !== null));
    setHidden(this.nothing, some);
    setText(this.nothing, some ? "" : why || (curves.length ? "Not determined in this range" : "No trace is chosen"));
    this.box.setAttribute("aria-label", this.spoken());
  }

  rebuild() {
    this.plot?.destroy();
    const { curves, kind, log } = this.drawn;
    const timed = kind === "time";
    const axis = { stroke: colour("muted"), font: "12px Inter, system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    const inks = curves.map(({ place }) => colour(`curve-${place % 8}`));
    this.plot = new uPlot({
      width: this.box.clientWidth || 600,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, RIGHT, 0, 0],
      cursor: { ...(timed ? { sync: { key: "time" } } : {}), points: { size: 6 }, drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => () => this.show(null) } },
      scales: { x: { time: false, range: () => this.limits() }, y: log ? { distr: 3 } : { range: (_, low, high) => padded(low, high) } },
      axes: [
        { ...axis, size: 28, gap: 4, space: 80, ...(timed ? { incrs: TIME_STEPS, values: (_, at) => axisTimes(at) } : { values: (_, at) => at.map((value, k) => `${brief(value)}${k === at.length - 1 ? ` ${UNITS[kind]}` : ""}`) }) },
        { ...axis, size: LEFT, gap: 6, space: 30, values: (_, at) => at.map((value) => (value === null ? "" : short(value))) },
      ],
      series: [{}, ...curves.map(({ place, wide, joined, dots }, k) => ({ stroke: inks[k], width: wide ? 2.4 : 1.5, dash: DASHES[Math.floor(place / 8) % DASHES.length], spanGaps: joined === true, points: dots ? { show: true, size: 4, fill: inks[k], stroke: inks[k] } : { show: false } }))],
      hooks: { draw: [(plot) => this.drawMarks(plot)], setSelect: [(plot) => this.onSelect(plot)] },
    }, [this.drawn.x, ...curves.map(({ y }) => y)], this.box);
  }

  limits() {
    if (this.drawn.kind === "time") return [this.view.from, this.view.to];
    return this.range ?? [0, this.drawn.limit || 1];
  }

  move() {
    const [min, max] = this.drawn ? this.limits() : [0, 1];
    this.plot?.batch(() => this.plot.setScale("x", { min, max }));
  }

  /** Shows this range of x; null shows all: of a spectrum, up to the highest frequency. */
  show(range) {
    if (this.drawn.kind === "time") {
      if (range) this.view.show(...range);
      else this.view.showLast(Infinity);
      return;
    }
    const end = this.drawn.x.at(-1) ?? 1;
    const span = range ? Math.max(range[1] - range[0], end / 2000) : end;
    const from = range ? Math.min(Math.max(0, range[0]), Math.max(0, end - span)) : 0;
    this.range = [from, Math.min(end, from + span)];
    this.move();
  }

  onSelect(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.show([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
  }

  onKey(event) {
    if (isTyping(event) || !this.plot) return;
    const [from, to] = this.limits();
    const [step, middle] = [0.2 * (to - from), (from + to) / 2];
    const zoomed = (factor) => [middle - (middle - from) * factor, middle + (to - middle) * factor];
    const act = {
      ArrowLeft: () => this.show([from - step, to - step]),
      ArrowRight: () => this.show([from + step, to + step]),
      "+": () => this.show(zoomed(0.6)),
      "=": () => this.show(zoomed(0.6)),
      "-": () => this.show(zoomed(1 / 0.6)),
      0: () => this.show(null),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `600 ${12 * ratio}px Inter, system-ui, sans-serif`;
    ctx.strokeStyle = ctx.fillStyle = colour("rate");
    ctx.textAlign = "left";
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.lineWidth = 1.5 * ratio;
    for (const { x, text } of this.drawn.marks ?? []) {
      const at = plot.valToPos(x, "x", true);
      if (at < bbox.left || at > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(text, at + 5 * ratio, bbox.top + 12 * ratio);
    }
    ctx.restore();
  }

  resize() {
    if (this.plot && this.box.clientWidth && this.plot.width !== this.box.clientWidth) this.plot.setSize({ width: this.box.clientWidth, height: HEIGHT });
  }

  spoken() {
    const { curves, kind, x } = this.drawn;
    const [from, to] = this.limits();
    const range = kind === "time" ? `${duration(from)} to ${duration(to)}` : `${brief(from)} to ${brief(to)} ${UNITS[kind]}`;
    const parts = curves.map(({ name, y }) => {
      const top = y.reduce((best, value, k) => (value !== null && x[k] >= from && x[k] <= to && value > (y[best] ?? -Infinity) ? k : best), -1);
      if (top < 0) return `${name}: nothing`;
      return `${name}: highest ${brief(y[top])} at ${kind === "time" ? duration(x[top]) : brief(x[top])}`;
    });
    const title = { time: "Traces over", spectrum: "Amplitude spectra over", profile: "Line profile over" }[kind];
    return `${title} ${range}. ${parts.slice(0, 8).join("; ")}`;
  }
}

function padded(low, high) {
  if (low === null || high === null) return [0, 1];
  const margin = 0.06 * (high - low) || 0.02 * Math.abs(high) || 1;
  return [low >= 0 && low < margin ? 0 : low - margin, high + margin];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${brief(value / 1e6, 3)}M`;
  return size >= 1e4 ? `${brief(value / 1e3, 3)}k` : brief(value, 3);
}
