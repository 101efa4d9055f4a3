// The page of a sample: one result of all its streams on one time axis, and the list of them.
import { ask, at } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { axisTexts, axisTimes, brief, duration, momentText, TIME_STEPS, visible } from "./format.js";
import { axisUnit, grown, measured, QUANTITIES } from "./quantities.js";
import { statusOf } from "./stream_status.js";
import { colour, setUpTheme } from "./theme.js";

const uPlot = window.uPlot;
const sampleId = decodeURIComponent(location.pathname.split("/").at(-1));
const HEIGHT = 360;
const REFRESH_MS = 5000;
// Pauses that are left out become this share of the axis.
const GAP = 0.02;
const INKS = ["rate", "second", "trace", "third"];
const state = { reply: null, problems: null };
const [quantity, cut] = [byId("quantity"), byId("cut")];
let plot = null;

async function load() {
  try {
    [state.reply, state.problems] = await Promise.all([ask(`/dashboard/samples/${sampleId}?name=${quantity.value}`), ask("/dashboard/problems").catch(() => null)]);
    setHidden(byId("notice"), true);
  } catch (error) {
    if (error.status === 401) return;
    setText(byId("name"), error.status === 404 ? "No such sample" : "Sample");
    setText(byId("notice"), error.message);
    setHidden(byId("notice"), false);
    return;
  }
  const { reply } = state;
  // Oldest first, as they were grown.
  reply.streams.sort((a, b) => (a.begin_unix_ms ?? Date.parse(a.made)) - (b.begin_unix_ms ?? Date.parse(b.made)) || Date.parse(a.made) - Date.parse(b.made));
  setText(byId("name"), visible(reply.name));
  document.title = `${visible(reply.name)} · atomstream`;
  const total = reply.streams.reduce((sum, { length_s: length }) => sum + length, 0);
  setText(byId("facts"), `Sample · ${reply.streams.length}${reply.more ? " newest" : ""} ${reply.streams.length === 1 ? "stream" : "streams"}, ${duration(total, { tenths: false })} in all`);
  drawList();
  draw();
  document.body.dataset.ready = quantity.value;
}

/** Where each stream begins on the axis, in s. */
function begins(streams) {
  if (!cut.checked) return streams.map(({ begin_unix_ms: begin, made }) => (begin ?? Date.parse(made)) / 1000);
  const lengths = streams.map(({ t }) => t.at(-1) ?? 0);
  const gap = GAP * lengths.reduce((sum, length) => sum + length, 0);
  let from = 0;
  return lengths.map((length) => {
    const begin = from;
    from += length + gap;
    return begin;
  });
}

function draw() {
  const box = byId("chart");
  const { streams, unit } = state.reply;
  const from = begins(streams);
  plot?.destroy();
  const series = streams.map(({ name }, k) => ({ label: visible(name), stroke: colour(INKS[k % INKS.length]), width: 1.6, points: { show: false }, spanGaps: false }));
  const axis = { stroke: colour("muted"), font: "12px Inter, system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const time = cut.checked ? { incrs: TIME_STEPS, values: (_, places) => axisTimes(places), label: "Time of growth, without the time between streams" } : { label: "Date and time" };
  plot = new uPlot({
    width: box.clientWidth || 800,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 6 } },
    scales: { x: { time: !cut.checked } },
    axes: [{ ...axis, size: 28, labelSize: 18, labelFont: axis.font, ...time }, { ...axis, size: 62, label: axisUnit(quantity.value, unit), labelSize: 20, labelFont: axis.font, values: (_, places) => axisTexts(places) }],
    series: [{}, ...series],
  }, joined(streams.map(({ t, values }, k) => [t.map((at) => from[k] + at), values])), box);
  const title = QUANTITIES.find(([name]) => name === quantity.value)?.[1];
  const known = streams.flatMap(({ values }) => values.filter((value) => value !== null));
  const range = known.length ? `from ${brief(known.reduce((a, b) => Math.min(a, b)))} to ${brief(known.reduce((a, b) => Math.max(a, b)))} ${axisUnit(quantity.value, unit)}` : "nothing is determined";
  box.setAttribute("aria-label", `${title} of ${streams.length} streams: ${range}`);
}

/** Columns of uPlot: all times, and one column for each stream. */
function joined(tables) {
  const known = tables.filter(([t]) => t.length);
  if (!known.length) return [[], ...tables.map(() => [])];
  // Two streams may share a time: join() needs each time once in a table, which their order gives.
  return uPlot.join(tables.map(([t, values]) => [t.length ? t : [known[0][0][0]], t.length ? values : [null]]));
}

function drawList() {
  const { streams } = state.reply;
  byId("rows").replaceChildren(...streams.map((stream, k) => {
    const [status, tone] = statusOf(stream.data_id, stream.status, state.problems);
    const facts = [momentText(stream.begin_unix_ms ?? Date.parse(stream.made)), duration(stream.length_s, { tenths: false }), measured(stream.summary?.rate), grown(stream.summary)];
    return el("li", {},
      el("span", { class: `ink ink-${INKS[k % INKS.length]}`, "aria-hidden": "true" }),
      el("a", { href: at(`/streams/${encodeURIComponent(stream.data_id)}`), dir: "auto" }, visible(stream.name)),
      el("span", { class: `status ${tone}` }, status),
      el("span", { class: "muted num" }, facts.filter(Boolean).join(" · ")),
      el("a", { class: "compare-link", href: at(`/compare/${encodeURIComponent(stream.data_id)}`), "aria-label": `Compare ${visible(stream.name)}` }, "Compare"));
  }));
}

quantity.replaceChildren(...QUANTITIES.map(([name, title]) => el("option", { value: name }, title)));
quantity.addEventListener("change", load);
cut.addEventListener("change", draw);
new ResizeObserver(() => { if (plot) plot.setSize({ width: byId("chart").clientWidth, height: HEIGHT }); }).observe(byId("chart"));
setUpTheme(() => { if (state.reply) draw(); });
await load();
const runs = () => state.reply?.streams.some(({ status }) => status.startsWith("stream_") && status !== "stream_error");
setInterval(() => { if (!document.hidden && runs()) load(); }, REFRESH_MS);
