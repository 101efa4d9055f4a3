// The page "Compare": this growth over an earlier one and over what is normal, and both pictures at the same place.
import { ask, at } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { axisTexts, brief, duration, TIME_STEPS, axisTimes, visible } from "./format.js";
import { Pair } from "./picture_pair.js";
import { axisUnit, QUANTITIES } from "./quantities.js";
import { colour, setUpTheme } from "./theme.js";

const uPlot = window.uPlot;
const dataId = decodeURIComponent(location.pathname.split("/").at(-1));
const REFRESH_MS = 4000;
const HEIGHT = 380;
const state = { reply: null, place: null, asked: 0, shown: "" };
const [ghost, quantity, align, slider] = ["ghost", "quantity", "align", "at"].map(byId);
const pair = new Pair(dataId);
let plot = null;

/** Loads the growths that can be chosen, with the best one selected. */
async function loadGrowths() {
  const { growths, best, alike, rule } = await ask(`/dashboard/streams/${dataId}/growths`);
  const wanted = new URLSearchParams(location.search).get("with") ?? best ?? "";
  const option = ({ data_id: id, name, made }) => el("option", { value: id }, `${id === best ? "Best: " : ""}${visible(name)} (${made.slice(0, 10)})`);
  ghost.replaceChildren(...(best ? [] : [el("option", { value: "" }, growths.length ? "Choose a growth" : "There is no ended growth")]), ...growths.map(option));
  if (wanted && !growths.some(({ data_id: id }) => id === wanted)) ghost.append(el("option", { value: wanted }, "Chosen growth"));
  ghost.value = wanted;
  setText(byId("rule"), alike ? "" : `To choose from: ended growths ${visible(rule)}.`);
}

async function load() {
  const number = ++state.asked;
  const query = new URLSearchParams({ name: quantity.value, align: align.value, points: "500" });
  if (ghost.value) query.set("with", ghost.value);
  const reply = await ask(`/dashboard/streams/${dataId}/comparison?${query}`);
  if (number !== state.asked) return;
  state.reply = reply;
  draw();
  describe();
  await showPlace();
}

const refresh = () => load().then(() => setHidden(byId("notice"), true)).catch((error) => {
  if (error.status === 401) return;
  setText(byId("notice"), error.message);
  setHidden(byId("notice"), false);
});

// ---- the chart

function columns() {
  const { x, today, ghost: earlier, low, high } = state.reply;
  const none = x.map(() => null);
  return [x, high ?? none, low ?? none, earlier ?? none, today ?? none];
}

function draw() {
  const box = byId("chart");
  const layers = state.reply.x_unit === "layers";
  const shape = `${layers} ${state.reply.unit} ${box.clientWidth} ${document.documentElement.dataset.theme} ${quantity.value}`;
  if (plot === null || state.shape !== shape) {
    plot?.destroy();
    state.shape = shape;
    plot = new uPlot(options(layers, box.clientWidth || 800), columns(), box);
    return;
  }
  plot.setData(columns());
}

function options(layers, width) {
  const axis = { stroke: colour("muted"), font: "12px Inter, system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const band = colour("third");
  const title = layers ? "Layers since the alignment" : "Time from the alignment";
  const under = { size: 28, label: title, labelSize: 18, labelFont: axis.font };
  const line = (ink, more) => ({ stroke: ink, points: { show: false }, spanGaps: false, ...more });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 24, 0, 0],
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: false } },
    axes: [
      layers ? { ...axis, ...under } : { ...axis, ...under, incrs: TIME_STEPS, values: (_, places) => axisTimes(places) },
      { ...axis, size: 62, label: axisUnit(state.reply.name, state.reply.unit), labelSize: 20, labelFont: axis.font, values: (_, places) => axisTexts(places) },
    ],
    series: [{}, line(`${band}88`, { width: 0.5 }), line(`${band}88`, { width: 0.5 }), line(colour("second"), { width: 1.4, dash: [6, 4] }), line(colour("rate"), { width: 2.2 })],
    bands: [{ series: [1, 2], fill: `${band}3c` }],
    hooks: { draw: [drawLeft], ready: [(made) => made.over.addEventListener("click", () => choose(made.cursor.idx))] },
  };
}

/** The place where this growth leaves the band, and the place of the pictures. */
function drawLeft({ ctx, bbox, valToPos }) {
  const at = (x, ink, dash) => {
    const left = Math.round(valToPos(x, "x", true)) + 0.5;
    ctx.save();
    ctx.strokeStyle = ink;
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.setLineDash(dash);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  };
  if (state.reply?.left) at(state.reply.left.x, colour("warn"), []);
  if (state.place !== null && state.reply?.x[state.place] !== undefined) at(state.reply.x[state.place], colour("line-strong"), [4, 4]);
}

function placeText(x) {
  return state.reply.x_unit === "layers" ? `layer ${brief(x, 4)}` : duration(x);
}

/** What the comparison says, in a sentence; the chart repeats it for who does not see it. */
function describe() {
  const { reply } = state;
  const name = QUANTITIES.find(([key]) => key === reply.name)?.[1] ?? reply.name;
  const verdict = byId("verdict");
  let text;
  if (!reply.x.length) text = "There is nothing to compare yet.";
  else if (reply.left) text = `${name} leaves what is normal at ${placeText(reply.left.x)}${reply.left.time_s === null ? "" : ` (${duration(reply.left.time_s)} after the first frame)`}.`;
  else if (reply.low) text = withinText(name);
  else text = `No band: ${reply.band_why}.`;
  verdict.classList.toggle("left", Boolean(reply.left));
  setText(verdict, text);
  const which = reply.ghost_name === null ? "" : `Earlier growth: “${visible(reply.ghost_name)}”${reply.ghost_id === reply.best ? `, the best ${visible(reply.rule)}: ${reply.best_rule}` : ""}. `;
  const band = reply.low ? `Normal: where 95 % of growths lie that are like ${reply.band_of} ended growths ${visible(reply.rule)}. ` : "";
  if (which || band) setText(byId("rule"), `${which}${band}Aligned on ${reply.aligned_on}.`);
  setText(byId("notes"), reply.notes.map((note) => `${visible(note)}.`).join(" "));
  setText(byId("legend-ghost"), reply.ghost_name === null ? "Earlier growth" : visible(reply.ghost_name));
  setHidden(byId("legend-ghost"), reply.ghost_name === null);
  setHidden(byId("legend-band"), !reply.low);
  setHidden(byId("legend-left"), !reply.left);
  const known = (reply.today ?? []).filter((value) => value !== null);
  const unit = axisUnit(reply.name, reply.unit);
  byId("chart").setAttribute("aria-label", `${name} of this growth${reply.ghost_name === null ? "" : " and of an earlier one"}: ${known.length ? `from ${brief(Math.min(...known))} to ${brief(Math.max(...known))} ${unit}` : "not determined"}. ${text}`);
}

/** Where the growth is normal: as far as both are known, and no farther. */
function withinText(name) {
  const { x, today, low, time } = state.reply;
  const lastOf = (known) => x.findLastIndex((_, k) => known(k));
  const checked = lastOf((k) => today[k] !== null && low[k] !== null);
  if (checked < 0) return `${name} can't be compared: it is not determined where enough earlier growths have it.`;
  const newest = lastOf((k) => time[k] !== null);
  if (newest - checked <= 0.02 * x.length) return `${name} is within what is normal.`;
  const why = today.slice(checked + 1, newest + 1).some((value) => value !== null) ? "too few earlier growths go on" : "it is not determined";
  return `${name} was within what is normal up to ${placeText(x[checked])}; after that ${why}.`;
}

// ---- the pictures

/** The place of the pictures: where the growth leaves the band, else its newest place that both growths have. */
function firstPlace() {
  const { x, time = [], ghost_time: earlier = [], left } = state.reply;
  if (left) return x.findIndex((value) => value >= left.x - 1e-9);
  const both = x.map((_, k) => k).filter((k) => (time[k] ?? null) !== null && (earlier[k] ?? null) !== null);
  return both.at(-1) ?? x.findLastIndex((_, k) => (time[k] ?? null) !== null);
}

function choose(place) {
  if (place === null || place === undefined) return;
  state.place = state.chosen = place;
  plot.redraw(false);
  showPlace();
}

async function showPlace() {
  const { reply } = state;
  if (!reply?.x.length) return;
  state.place = state.chosen ?? firstPlace();
  const place = Math.min(Math.max(state.place, 0), reply.x.length - 1);
  slider.disabled = false;
  slider.max = String(reply.x.length - 1);
  slider.value = String(place);
  slider.setAttribute("aria-valuetext", placeText(reply.x[place]));
  setText(byId("place"), placeText(reply.x[place]));
  await pair.show(reply.ghost_id, reply.time?.[place] ?? null, reply.ghost_time?.[place] ?? null);
}

// ---- begin

quantity.replaceChildren(...QUANTITIES.map(([name, title]) => el("option", { value: name }, title)));
for (const select of [ghost, quantity, align]) {
  select.addEventListener("change", () => {
    state.chosen = undefined;
    refresh();
  });
}
slider.addEventListener("input", () => choose(Number(slider.value)));
new ResizeObserver(() => { if (state.reply) draw(); }).observe(byId("chart"));
setUpTheme(() => { if (state.reply) draw(); });
byId("to-stream").href = at(`/streams/${encodeURIComponent(dataId)}`);
const info = await ask(`/dashboard/streams/${dataId}`).catch(() => null);
if (info) {
  setText(byId("name"), visible(info.name));
  document.title = `${visible(info.name)} compared · atomstream`;
}
await loadGrowths().catch(() => {});
await refresh();
document.body.dataset.ready = "true";
// The chart of a running growth is updated.
if (info && info.status !== "success") setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
