// Traces of regions together in one chart: over time, as amplitude spectra; and a line profile with its fits.
import { ask } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { AzimuthMap } from "./azimuth_map.js";
import { brief, duration, visible, withSigma } from "./format.js";
import { CurveChart } from "./curve_chart.js";
import { lineOptions } from "./regions.js";
import { loadChoices, saveChoices } from "./stored_choices.js";
import { rangeQuery } from "./series.js";

const EACH_MS = 1000;
const SOON_MS = 150;
const POINTS = 1200;
const FIXED = [["specular_intensity", "Specular"], ["first_order_intensity", "First order"], ["reconstruction_intensity", "Half order"]];
const MODES = ["time", "spectrum", "profile", "azimuths"];
// A map reads up to 120 frames.
const MAP_EACH_MS = 5000;
/** A spectrum is first shown up to this multiple of the frequency of the oscillations. */
const HARMONICS = 8;

export class Traces {
  /** `values()` are the newest results, `shownTime()` is the time of the picture in s, or null for the newest. */
  constructor(dataId, view, { values, shownTime }) {
    this.path = `/dashboard/streams/${dataId}`;
    Object.assign(this, { view, values, shownTime });
    this.kept = loadChoices("traces", { mode: "time", log: false, same: false, off: ["first_order_intensity", "reconstruction_intensity"] });
    if (!MODES.includes(this.kept.mode)) this.kept.mode = "time";
    if (!Array.isArray(this.kept.off)) this.kept.off = [];
    this.choices = FIXED;
    this.lines = [];
    this.reply = null;
    this.chart = new CurveChart(byId("traces-chart"), view);
    this.map = new AzimuthMap(byId("azimuth-map"), `${this.path}/azimuth-map`);
    this.views = [];
    for (const button of document.querySelectorAll("[data-curve]")) button.addEventListener("click", () => this.keep({ mode: button.dataset.curve }));
    byId("traces-log").addEventListener("click", () => this.keep({ log: !this.kept.log }));
    byId("traces-same").addEventListener("click", () => this.keep({ same: !this.kept.same }));
    byId("profile-line").addEventListener("change", () => this.soon());
    view.addEventListener("change", () => {
      this.chart.move();
      this.soon();
    });
    // Nothing is requested while the chart is not on the screen.
    new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      this.soon();
    }).observe(byId("traces-panel"));
    this.setRegions({}, []);
    this.showMode();
  }

  /** The views of a rotating sample with their names; `turning` false for all others. */
  setViews(turning, views) {
    this.views = views;
    const button = document.querySelector("[data-curve=azimuths]");
    if (button.hidden === !turning) return;
    setHidden(button, !turning);
    if (!turning && this.kept.mode === "azimuths") this.keep({ mode: "time" });
  }

  /** `columns`: the result of each box by its name; `own`: the regions of the user. */
  setRegions(columns, own) {
    this.choices = [...FIXED, ...Object.entries(columns).map(([name, column]) => [column, visible(name)])];
    const options = [...lineOptions(own), ...own.filter(({ type }) => type === "box").map(({ name }) => el("option", { value: name }, `${visible(name)}, across`))];
    const before = byId("profile-line").value;
    byId("profile-line").replaceChildren(...options);
    if (options.some(({ value }) => value === before)) byId("profile-line").value = before;
    const content = JSON.stringify(this.choices);
    if (content === this.content) return;
    this.content = content;
    this.boxes = new Map();
    byId("traces-list").replaceChildren(...this.choices.map(([column, name], place) => this.chip(column, name, place)));
    this.soon();
  }

  chip(column, name, place) {
    const input = el("input", { type: "checkbox" });
    input.checked = !this.kept.off.includes(column);
    input.addEventListener("change", () => {
      const off = this.kept.off.filter((one) => one !== column);
      this.keep({ off: input.checked ? off : [...off, column].slice(-200) });
    });
    const swatch = el("span", { class: `swatch curve-${place % 8}` });
    const now = el("span", { class: "now num" });
    this.boxes.set(column, now);
    return el("label", { class: "chip" }, input, swatch, name, now);
  }

  get names() {
    return this.choices.map(([column]) => column).filter((column) => !this.kept.off.includes(column));
  }

  keep(changes) {
    Object.assign(this.kept, changes);
    saveChoices("traces", this.kept);
    this.showMode();
    if (changes.mode) {
      this.reply = null;
      if (this.kept.mode !== "azimuths") this.chart.draw({ curves: [], x: [], kind: this.kept.mode, why: "Loading …" });
      byId("profile-rows").replaceChildren();
      setText(byId("traces-note"), "");
    } else this.redraw();
    this.soon();
  }

  showMode() {
    const { mode, log, same } = this.kept;
    for (const button of document.querySelectorAll("[data-curve]")) button.setAttribute("aria-pressed", String(button.dataset.curve === mode));
    byId("traces-log").setAttribute("aria-pressed", String(log));
    byId("traces-same").setAttribute("aria-pressed", String(same));
    const lined = mode === "profile" || mode === "azimuths";
    setHidden(byId("traces-list"), lined);
    setHidden(byId("traces-same"), lined);
    setHidden(byId("profile-line"), !lined);
    setHidden(byId("traces-log"), mode === "azimuths");
    setHidden(byId("traces-chart"), mode === "azimuths");
    setHidden(byId("azimuth-map"), mode !== "azimuths");
    setHidden(byId("profile-peaks"), mode !== "profile");
  }

  /** `fresh`: there are new results, which come often; a choice of the user is shown at once. */
  soon(fresh = false) {
    if (this.loading) this.again = true;
    if (this.timer) return;
    this.timer = setTimeout(async () => {
      this.loading = true;
      this.again = false;
      await this.load().catch((error) => this.fail(error));
      this.loading = false;
      this.timer = undefined;
      if (this.again) this.soon();
    }, Math.max(SOON_MS, (fresh ? (this.kept.mode === "azimuths" ? MAP_EACH_MS : EACH_MS) : 0) + (this.loadedAt ?? -Infinity) - performance.now()));
  }

  async load() {
    const { mode } = this.kept;
    const { names } = this;
    if (!this.seen || document.hidden) return;
    this.loadedAt = performance.now();
    const at = this.shownTime();
    const line = byId("profile-line").value;
    if (mode === "azimuths") {
      const count = await this.map.load(line, at, this.views);
      setText(byId("traces-note"), `last turn${at === null ? "" : ` before ${duration(at)}`} · ${count} azimuths`);
      return;
    }
    const address = {
      time: () => `series?${rangeQuery(this.view, names, POINTS)}`,
      spectrum: () => `spectrum?${rangeQuery(this.view, names, POINTS)}`,
      profile: () => `profile?${new URLSearchParams({ line, ...(at === null ? {} : { time: at }) })}`,
    }[mode];
    const reply = names.length || mode === "profile" ? await ask(`${this.path}/${address()}`) : { series: {}, t: [] };
    // The user chose something else meanwhile: this reply does not belong to it.
    if (mode !== this.kept.mode || names.join() !== this.names.join() || line !== byId("profile-line").value) this.again = true;
    else {
      this.reply = reply;
      this.show();
    }
  }

  fail(error) {
    if (error.status === 404 && this.kept.mode !== "azimuths") this.chart.draw({ curves: [], x: [], kind: this.kept.mode, why: error.message });
    // Another part of the page shows that the connection is lost.
    else if (error.status !== 401 && error.status !== 0) setText(byId("traces-note"), error.message);
  }

  show() {
    const curves = { time: () => this.overTime(), spectrum: () => this.spectra(), profile: () => this.profile() }[this.kept.mode]();
    this.chart.draw({ ...curves, kind: this.kept.mode, log: this.kept.log });
    setText(byId("traces-note"), curves.note);
    for (const [column, now] of this.boxes) setText(now, curves.now?.[column] ?? "");
  }

  redraw() {
    if (this.reply) this.show();
  }

  titled(name) {
    const place = this.choices.findIndex(([column]) => column === name);
    return { name: this.choices[place]?.[1] ?? name, place };
  }

  overTime() {
    const { t, series } = this.reply;
    const now = {};
    const curves = this.names.map((name) => {
      const y = series[name]?.mean ?? [];
      now[name] = brief(y.findLast((value) => value !== null) ?? null);
      return { ...this.titled(name), y: this.kept.same ? evened(y) : y };
    });
    return { x: t, curves, now, note: this.kept.same ? "each from 0 to 1" : "counts" };
  }

  spectra() {
    const found = this.names.map((name) => [name, this.reply.series[name]]);
    const known = found.filter(([, one]) => one?.frequency);
    const why = found.find(([, one]) => one?.why)?.[1].why;
    const now = {};
    // Each spectrum has its own frequencies: their union is the axis.
    const x = [...new Set(known.flatMap(([, one]) => one.frequency))].sort((a, b) => a - b);
    const curves = known.map(([name, one]) => {
      const at = new Map(one.frequency.map((frequency, k) => [frequency, one.amplitude[k]]));
      const y = x.map((frequency) => at.get(frequency) ?? null);
      now[name] = peakText(one, this.reportedHz());
      return { ...this.titled(name), y: this.kept.same ? evened(y, true) : y, joined: true };
    });
    const reported = this.reportedHz();
    const marks = reported ? [{ x: reported, text: `oscillations, ${brief(1 / reported)} s` }] : [];
    const turn = this.values().rotation_rpm?.value;
    if (turn) marks.push({ x: turn / 60, text: "one turn" });
    const limit = reported ? Math.min(x.at(-1) ?? 1, HARMONICS * reported) : x.at(-1) ?? 1;
    const resolution = known[0]?.[1].resolution;
    const note = known.length ? `${this.kept.same ? "each from 0 to 1" : "amplitude in counts"} · ${duration(this.reply.from_s)} – ${duration(this.reply.to_s)} · resolution ${brief(resolution, 2)} /s${reported ? "" : " · no period is determined"}` : "";
    return { x, curves, now, marks, limit, note, why };
  }

  /** The frequency of the oscillations that the analysis has determined, in 1/s; null without. */
  reportedHz() {
    const period = this.values().oscillation_period?.value;
    return period > 0 ? 1 / period : null;
  }

  profile() {
    const { values, peaks, frames, time_s: at } = this.reply;
    const fit = values.map(() => null);
    for (const { first, curve } of peaks) curve.forEach((value, k) => { fit[first + k] = value; });
    const row = ({ centre, sigma, fwhm, fwhm_sigma: widthSigma, height }) => el("tr", {}, ...[withSigma(centre, sigma), withSigma(fwhm, widthSigma)].map((text) => el("td", { class: "num" }, `${text.value} ± ${text.sigma || "?"} px`)), el("td", { class: "num" }, brief(height)));
    byId("profile-rows").replaceChildren(...(peaks.length ? peaks.map(row) : [el("tr", {}, el("td", { colspan: 3 }, "No peak stands out of the noise."))]));
    const curves = [{ name: "Profile", place: 0, y: values, dots: true }, { name: "Fit", place: 2, y: fit, wide: true }];
    return { x: values.map((_, k) => k), curves, note: `mean of ${frames} ${frames === 1 ? "frame" : "frames"} at ${duration(at)} · counts over px`, limit: values.length - 1 };
  }
}

/** From 0 to 1; `fromZero`: only the largest becomes 1. */
function evened(values, fromZero = false) {
  const known = values.filter((value) => value !== null);
  const [low, high] = known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [fromZero ? 0 : Infinity, -Infinity]);
  return values.map((value) => (value === null ? null : high > low ? (value - low) / (high - low) : 0.5));
}

/** The amplitude at the frequency that the analysis has determined. */
function peakText({ frequency, amplitude, resolution }, reported) {
  if (!reported) return "";
  const near = amplitude.filter((_, k) => Math.abs(frequency[k] - reported) < resolution);
  return near.length ? brief(near.reduce((a, b) => Math.max(a, b)), 3) : "";
}
