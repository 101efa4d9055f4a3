// Signals of instruments (temperature, shutters) as narrow lanes under the growth rate, on the time axis of the charts.
import { ask } from "./api.js";
import { LEFT, RIGHT } from "./charts.js";
import { byId, el, setText } from "./dom.js";
import { brief, duration, visible } from "./format.js";
import { colour } from "./theme.js";

const uPlot = window.uPlot;
const HEIGHT = 42;
const MOST = 8;
const POINTS = 1500;
// While the stream runs points may arrive at any time; a past range is requested once.
const EACH_MS = 2000;
const SOON_MS = 120;

export class SignalLanes {
  constructor(dataId, view, under) {
    this.path = `/rheed/stream/${dataId}/signals`;
    this.view = view;
    this.box = el("div", { id: "signals", role: "group", "aria-label": "Signals of instruments", hidden: true });
    under.after(this.box);
    this.lanes = new Map();
    view.addEventListener("change", () => {
      this.move();
      this.requestSoon();
    });
    new ResizeObserver(() => this.resize()).observe(byId("charts"));
    setInterval(() => this.view.follow && !document.hidden && this.requestSoon(), EACH_MS);
    this.requestSoon();
  }

  requestSoon() {
    if (this.timer) return;
    // In follow mode the range moves twice a second; where no instrument sends signals, fewer requests are enough.
    const wait = this.view.follow && !this.lanes.size ? (this.loadedAt ?? -Infinity) + EACH_MS - performance.now() : 0;
    this.timer = setTimeout(() => this.load(), Math.max(SOON_MS, wait));
  }

  async load() {
    const { from, to } = this.view;
    this.loadedAt = performance.now();
    const query = new URLSearchParams({ after: String(from), before: String(to), points: String(POINTS) });
    try {
      const { channels, end_seconds: end } = await ask(`${this.path}?${query}`);
      this.show(channels.slice(0, MOST), Math.min(to, end));
    } catch {
      // The stream was deleted, or the connection is lost: another part of the page shows that.
    }
    this.timer = null;
    if (this.view.from !== from || this.view.to !== to) this.requestSoon();
  }

  show(channels, end) {
    const names = channels.map(({ name }) => name);
    if (JSON.stringify([...this.lanes.keys()]) !== JSON.stringify(names)) this.rebuild(channels);
    for (const channel of channels) this.draw(this.lanes.get(channel.name), channel, end);
    this.box.hidden = channels.length === 0;
  }

  rebuild(channels = this.channels ?? []) {
    this.channels = channels;
    for (const { plot } of this.lanes.values()) plot.destroy();
    this.lanes.clear();
    this.box.replaceChildren();
    const width = byId("charts").clientWidth || 600;
    for (const { name, units } of channels) {
      const now = el("span", { class: "now num" });
      const box = el("div", { class: "lane-plot", role: "img" });
      this.box.append(el("div", { class: "chart-title" }, el("h3", {}, visible(name)), el("span", {}, visible(units ?? "")), now), box);
      this.lanes.set(name, { box, now, plot: new uPlot(this.options(width), [[], []], box) });
    }
  }

  options(width) {
    const axis = { stroke: colour("muted"), font: "11px Inter, system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      padding: [4, RIGHT, 4, 0],
      cursor: { sync: { key: "time" }, y: false, points: { size: 5 }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: () => [this.view.from, this.view.to] }, y: { range: rangeOf } },
      axes: [
        { ...axis, size: 0, values: () => [] },
        { ...axis, size: LEFT, gap: 6, splits: (plot) => splitsOf(plot), values: (_, at) => at.map((value) => brief(value, 3)) },
      ],
      // A value holds until the next one, as in the archive.
      series: [{}, { stroke: colour("second"), width: 1.4, spanGaps: false, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
      hooks: { setCursor: [(plot) => this.tell(plot)] },
    };
  }

  draw(lane, { name, units, time_seconds: times, values }, end) {
    const [t, y] = [[...times], [...values]];
    if (t.length && t.at(-1) < end) {
      t.push(end);
      y.push(y.at(-1));
    }
    lane.plot.setData([t, y]);
    lane.newest = y.findLast((value) => value !== null);
    const shown = lane.newest === undefined ? "no value in this range" : `newest ${brief(lane.newest)} ${visible(units ?? "")}`;
    lane.box.setAttribute("aria-label", `${visible(name)} from ${duration(this.view.from)} to ${duration(this.view.to)}: ${shown}`);
    this.tell(lane.plot);
  }

  /** Shows the value under the pointer, of the last point before it, or the newest one. */
  tell(plot) {
    const lane = [...this.lanes.values()].find((one) => one.plot === plot);
    if (!lane) return;
    const at = plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : null;
    const place = at === null ? -1 : plot.data[0].findLastIndex((time) => time <= at);
    setText(lane.now, brief(place < 0 ? lane.newest : plot.data[1][place]));
  }

  move() {
    for (const { plot } of this.lanes.values()) plot.setScale("x", { min: this.view.from, max: this.view.to });
  }

  resize() {
    const width = byId("charts").clientWidth;
    for (const { plot } of this.lanes.values()) if (width && plot.width !== width) plot.setSize({ width, height: HEIGHT });
  }
}

function rangeOf(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const margin = low === high ? Math.max(Math.abs(low) * 0.05, 0.5) : 0.08 * (high - low);
  return [low - margin, high + margin];
}

/** The smallest and the largest value. */
function splitsOf(plot) {
  const { min, max } = plot.series[1];
  if (!Number.isFinite(min) || !Number.isFinite(max)) return [];
  return min === max ? [min] : [min, max];
}
