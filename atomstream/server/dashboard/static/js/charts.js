// The charts: intensity, growth rate, and a selectable quantity, on one time axis.
import { byId, el, isTyping, setText } from "./dom.js";
import { axisTexts, axisTimes, brief, digitsFor, duration, TIME_STEPS, unitText } from "./format.js";
import { colour } from "./theme.js";

const uPlot = window.uPlot;
export const LEFT = 58;
// Half of the longest tick label, which is centred at its tick.
export const RIGHT = 36;
const AXIS = 24;
const ROOM_OF_A_MARK = 24;
const LEAST_HEIGHT = 200;
const MOST_HEIGHT = 620;
const DOUBLE_MS = 280;
const PERCENT = { relative_spacing_change: "Spacing change", relative_lattice_change: "Lattice change", referenced_strain: "Strain" };
// Computed in Å from the spacing in px, so that a later calibration applies to earlier data.
const LATTICE = "lattice_parameter";
const CHOICES = [
  [LATTICE, "Lattice parameter", "Å"],
  ["relative_lattice_change", "Lattice change", "%"],
  ["relative_spacing_change", "Spacing change", "%"],
  ["referenced_strain", "Strain", "%"],
  ["lattice_spacing", "Streak spacing", "px"],
  ["specular_fwhm_1", "Specular width", "px"],
  ["first_order_fwhm_1", "First-order width", "px"],
  ["spottiness", "2D / 3D (spottiness)", "0–1"],
  ["first_order_intensity", "First-order intensity", "counts/px"],
  ["reconstruction_intensity", "Half order over first", "ratio"],
  ["oscillations_counted", "Oscillations since the last segment mark", ""],
  ["change_score", "Change score", ""],
  ["saturated_fraction", "Saturated share", ""],
  ["rotation_rpm", "Rotation", "rpm"],
];

export class Charts extends EventTarget {
  constructor(view, series) {
    super();
    this.view = view;
    this.series = series;
    this.events = [];
    this.choice = "relative_lattice_change";
    this.regions = [];
    // Å times px: the two are inversely proportional. Null without a calibration.
    this.scale = null;
    this.panels = [
      this.panel("specular", "Specular intensity", "counts", 0.36),
      this.panel("growth", "Growth rate", "ML/s", 0.33),
      this.panel("choice", null, "", 0.31),
    ];
    this.fillChoices([]);
    this.setNames();
    series.addEventListener("data", () => this.draw());
    view.addEventListener("change", () => this.move());
    // Registered after the chart's own listener, which turns a drag into a selection.
    window.addEventListener("mouseup", () => view.hold(false));
    // The parts above grow when the first values arrive.
    const observer = new ResizeObserver(() => this.resize());
    for (const part of document.querySelectorAll("#charts, .rate, .tiles")) observer.observe(part);
    window.addEventListener("resize", () => this.resize());
    this.rebuild();
  }

  panel(key, title, unit, share) {
    const now = el("span", { class: "now num" });
    const unitSpan = el("span", {}, unit);
    const select = title === null ? el("select", { "aria-label": "Quantity of the third chart" }) : null;
    const nothing = el("p", { class: "nothing", hidden: true });
    const box = el("div", { class: "chart", tabindex: "0", role: "group", "aria-roledescription": "chart" }, nothing);
    byId("charts").append(el("div", { class: "chart-title" }, title ? el("h3", {}, title) : select, unitSpan, now), box);
    box.addEventListener("mousedown", () => this.view.hold(true));
    box.addEventListener("keydown", (event) => this.onKey(event));
    box.addEventListener("click", (event) => this.onClick(event));
    box.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    return { key, title, unit, unitSpan, share, now, select, nothing, box, plot: null };
  }

  fillChoices(regions) {
    const { select } = this.panels[2];
    this.regions = regions;
    const choices = [...CHOICES.filter(([name]) => name !== LATTICE || this.scale !== null), ...regions.map(([name, column]) => [column, `Region ${name}`, "counts"])];
    this.choices = new Map(choices.map(([name, title, unit]) => [name, { title, unit }]));
    const reported = JSON.stringify(choices);
    if (this.reported === reported) return;
    this.reported = reported;
    select.replaceChildren(...choices.map(([name, title]) => el("option", { value: name }, title)));
    select.value = this.choice;
    if (!this.choices.has(this.choice)) this.choose("relative_lattice_change", false);
    select.onchange = () => this.choose(select.value);
  }

  /** Sets the factor from spacing to lattice parameter, from values of one time. */
  setLattice({ lattice_parameter: lattice, lattice_spacing: spacing }) {
    if (lattice?.value && spacing?.value) this.scale = lattice.value * spacing.value;
    else if (spacing?.value) this.scale = null;
    this.fillChoices(this.regions);
    return this.scale === null ? "relative_lattice_change" : LATTICE;
  }

  /** Selects the quantity of the third chart, unless the user has chosen one. */
  prefer(name) {
    if (!this.chosen && this.choice !== name) this.choose(name, false);
  }

  choose(name, byUser = true) {
    this.chosen = byUser;
    this.choice = name;
    this.panels[2].select.value = name;
    this.setNames();
    this.rebuild();
  }

  setNames() {
    this.series.setNames(["specular_intensity", "growth_rate_ml_s", "growth_rate_sigma", this.choice === LATTICE ? "lattice_spacing" : this.choice]);
  }

  setEvents(events) {
    this.events = events.filter((event) => event.time_s !== null);
    for (const { plot } of this.panels) plot?.redraw(false);
  }

  setRateUnit(unit) {
    if (!unit || this.panels[1].unit === unit) return;
    this.panels[1].unit = unit;
    setText(this.panels[1].unitSpan, unitText(unit));
  }

  // ---- drawing

  height(share) {
    return Math.floor(share * (window.innerWidth < 992 ? 430 : this.room()));
  }

  /**
   * What the plots may take so that all of them, and the waterfall, fit the screen they are on: its height without
   * the elements above and between them. Opened drawers do not count: opening one must not shrink a chart.
   */
  room() {
    const [top, bottom] = [byId("main").getBoundingClientRect().top, byId("waterfall").getBoundingClientRect().bottom];
    const plots = this.panels.reduce((sum, { box }) => sum + box.clientHeight, 0);
    const header = document.querySelector(".bar").offsetHeight;
    return Math.max(LEAST_HEIGHT, Math.min(MOST_HEIGHT, window.innerHeight - header - (bottom - top - plots) - AXIS - 10));
  }

  rebuild() {
    const width = byId("charts").clientWidth || 600;
    for (const panel of this.panels) {
      panel.plot?.destroy();
      panel.plot = new uPlot(this.options(panel, width), this.dataOf(panel), panel.box);
    }
    this.resize();
    this.draw();
  }

  options(panel, width) {
    const ink = colour({ specular: "trace", growth: "rate", choice: "second" }[panel.key]);
    const last = panel.key === "choice";
    const axis = { stroke: colour("muted"), font: "12px Inter, system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    return {
      width,
      height: this.height(panel.share) + (last ? AXIS : 0),
      legend: { show: false },
      padding: [6, RIGHT, last ? 0 : 6, 0],
      cursor: { sync: { key: "time" }, points: { size: 7 }, drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => () => this.onDoubleClick() } },
      scales: { x: { time: false, range: () => [this.view.from, this.view.to] }, y: { range: rangeOf } },
      axes: [
        { ...axis, show: true, size: last ? 28 : 0, gap: 4, space: 80, incrs: TIME_STEPS, values: last ? (_, at) => axisTimes(at) : () => [] },
        { ...axis, size: LEFT, gap: 6, space: 18, values: (plot, at) => (plot.series.some(({ min }, k) => k > 0 && min !== null && min !== undefined && Number.isFinite(min)) ? axisTexts(at) : []) },
      ],
      series: [{}, { stroke: ink, width: 1.6, spanGaps: false, points: { show: false } }, edge(ink), edge(ink)],
      bands: [{ series: [2, 3], fill: fade(ink, 0.28) }],
      hooks: { setSelect: [(plot) => this.onSelect(plot)], drawAxes: [(plot) => this.drawEvents(plot)], setCursor: [() => this.tellCursor()] },
    };
  }

  dataOf(panel) {
    const { t, series } = this.series.data;
    const empty = t.map(() => null);
    const of = (name) => series[name] ?? { mean: empty };
    if (panel.key === "growth") {
      const rate = of("growth_rate_ml_s").mean;
      const sigma = of("growth_rate_sigma").mean;
      const shifted = (sign) => rate.map((value, k) => (value === null || sigma[k] === null || sigma[k] === undefined ? null : value + sign * sigma[k]));
      return [t, rate, shifted(1), shifted(-1)];
    }
    const name = panel.key === "specular" ? "specular_intensity" : this.choice;
    if (name === LATTICE) {
      const { mean, high, low } = of("lattice_spacing");
      const lengths = (values) => values?.map((value) => (value ? this.scale / value : null));
      return [t, lengths(mean), lengths(low) ?? empty, lengths(high) ?? empty];
    }
    const factor = name in PERCENT ? 100 : 1;
    const scaled = (values) => (factor === 1 || !values ? values : values.map((value) => (value === null ? null : value * factor)));
    const { mean, high, low } = of(name);
    return [t, scaled(mean), scaled(high) ?? empty, scaled(low) ?? empty];
  }

  draw() {
    for (const panel of this.panels) {
      const data = this.dataOf(panel);
      panel.plot.setData(data, false);
      this.move(panel);
      const count = data[1].reduce((sum, value) => sum + (value !== null), 0);
      panel.nothing.hidden = count > 0;
      if (count === 0) setText(panel.nothing, data[0].length ? "Not determined in this range" : "No results in this range yet");
      this.describe(panel, data);
    }
  }

  move(one = null) {
    for (const panel of one instanceof Event || one === null ? this.panels : [one]) {
      panel.plot?.batch(() => panel.plot.setScale("x", { min: this.view.from, max: this.view.to }));
    }
  }

  resize() {
    const width = byId("charts").clientWidth;
    if (!width) return;
    this.series.setPoints(width - LEFT - RIGHT);
    // Measured first, then set: setting one changes the others.
    const heights = this.panels.map(({ share, key }) => this.height(share) + (key === "choice" ? AXIS : 0));
    this.panels.forEach(({ plot }, k) => plot?.setSize({ width, height: heights[k] }));
  }

  describe(panel, [t, mean]) {
    const { title, unit } = panel.key === "choice" ? this.choices.get(this.choice) : panel;
    setText(panel.unitSpan, unitText(unit));
    const known = mean.map((value, k) => [t[k], value]).filter(([, value]) => value !== null);
    const newest = known.at(-1);
    const values = known.map(([, value]) => value);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    panel.digits = digitsFor(high - low);
    panel.newest = newest ? panel.digits(newest[1]) : "";
    const shown = newest ? `from ${brief(low)} to ${brief(high)}, newest ${brief(newest[1])} ${unitText(unit)} at ${duration(newest[0])}` : "nothing to show";
    panel.box.setAttribute("aria-label", `${title} over ${duration(this.view.from)} to ${duration(this.view.to)}: ${shown}`);
    if (!this.pointing) setText(panel.now, panel.newest);
  }

  tellCursor() {
    for (const panel of this.panels) {
      const place = panel.plot?.cursor.idx;
      this.pointing = panel.plot && panel.plot.cursor.left >= 0 && place !== null && place !== undefined;
      if (!this.pointing) {
        setText(panel.now, panel.newest ?? "");
        continue;
      }
      const value = panel.plot.data[1][place];
      setText(panel.now, `${duration(panel.plot.data[0][place])}  ${value === null ? "–" : panel.digits(value)}`);
    }
  }

  drawEvents(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    const shown = this.events.filter(({ time_s: at }) => at >= this.view.from && at <= this.view.to);
    // Hundreds of marks would hide the data: the closer they are, the fainter they are drawn.
    ctx.globalAlpha = Math.min(1, Math.max(0.12, bbox.width / devicePixelRatio / Math.max(1, shown.length) / ROOM_OF_A_MARK));
    for (const event of shown) {
      const x = Math.round(plot.valToPos(event.time_s, "x", true)) + 0.5;
      ctx.strokeStyle = colour(event.by === "user" ? "mark" : "third");
      ctx.setLineDash(event.by === "user" ? [] : [4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  // ---- actions of the user

  onSelect(plot) {
    // The charts share one selection and each reports it; the one under the pointer is exact.
    const pointed = this.panels.find((panel) => panel.plot.over.matches(":hover"));
    if (plot.select.width < 4 || this.selected || (pointed && pointed.plot !== plot)) return;
    this.selected = true;
    requestAnimationFrame(() => { this.selected = false; });
    const from = plot.posToVal(plot.select.left, "x");
    const to = plot.posToVal(plot.select.left + plot.select.width, "x");
    for (const panel of this.panels) panel.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.view.show(from, to);
  }

  onClick(event) {
    const { plot } = this.panels[0];
    if (this.selected || event.detail !== 1 || !event.target.closest(".u-over")) return;
    const at = plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x");
    // Delayed until a double click can be excluded.
    this.clicked = setTimeout(() => this.dispatchEvent(new CustomEvent("moment", { detail: at })), DOUBLE_MS);
  }

  onDoubleClick() {
    clearTimeout(this.clicked);
    this.view.showLast(Infinity);
  }

  onWheel(event) {
    if (event.deltaY === 0 || event.shiftKey) return;
    event.preventDefault();
    const { plot } = this.panels[0];
    const at = plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x");
    this.view.zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY / 400))), this.view.follow ? this.view.to : at);
  }

  onKey(event) {
    if (isTyping(event)) return;
    const act = {
      ArrowLeft: () => this.view.pan(-0.2),
      ArrowRight: () => this.view.pan(0.2),
      "+": () => this.view.zoom(0.6),
      "=": () => this.view.zoom(0.6),
      "-": () => this.view.zoom(1 / 0.6),
      0: () => this.view.showLast(Infinity),
      Enter: () => this.dispatchEvent(new CustomEvent("moment", { detail: (this.view.from + this.view.to) / 2 })),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/** The y range: the shown values plus a margin, never empty. */
function rangeOf(plot, low, high) {
  if (low === null || high === null) return [0, 1];
  const margin = 0.08 * (high - low) || 0.02 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

function edge(ink) {
  return { stroke: fade(ink, 0.3), width: 0.5, points: { show: false } };
}

function fade(ink, alpha) {
  const [r, g, b] = [1, 3, 5].map((k) => Number.parseInt(ink.slice(k, k + 2), 16));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}
