// One stream's page: puts the parts together and hands on what the server says.
import { ask, logOut } from "./api.js";
import { Again } from "./again.js";
import { Azimuths } from "./azimuths.js";
import { Calibration } from "./calibrate.js";
import { Charts } from "./charts.js";
import { byId, el, isTyping, say, setHidden, setUpDrawer } from "./dom.js";
import { Events } from "./events.js";
import { Feed } from "./feed.js";
import { brief, clock, duration, STATUS, visible } from "./format.js";
import { Health, showReport } from "./health.js";
import { Marks, tell } from "./marks.js";
import { Picture } from "./picture.js";
import { Readings, sentence } from "./readings.js";
import { Regions } from "./regions.js";
import { Segments } from "./segments.js";
import { Series, valueAt } from "./series.js";
import { setUpTheme } from "./theme.js";
import { View } from "./view.js";
import { Waterfall } from "./waterfall.js";

const INFO_EACH_MS = 2000;
const CUTS = ["shutter", "laser", "growth", "pause", "rotation"];
const dataId = decodeURIComponent(location.pathname.split("/")[2]);

const view = new View();
const series = new Series(dataId, view);
const charts = new Charts(view, series);
const picture = new Picture(dataId);
const regions = new Regions(dataId, picture);
const readings = new Readings();
const events = new Events(view, ({ time_s: at }) => showMoment(at));
const segments = new Segments(({ start_s: from, end_s: to }) => view.show(from, to));
const waterfall = new Waterfall(dataId, view);
const health = new Health();
const again = new Again(dataId, () => feed.open());
const calibration = new Calibration(dataId, () => state.analysis, () => feed.open());
const azimuths = new Azimuths(dataId, showNames);
const state = { analysis: null, info: null, skew: 0, newestMs: null, base: { mark: null, counted: 0 } };

const serverNow = () => Date.now() + state.skew;
const elapsed = (ms) => (state.analysis?.origin_unix_ms ? duration((ms - state.analysis.origin_unix_ms) / 1000) : new Date(ms).toLocaleTimeString());
new Marks(dataId, { now: serverNow, elapsed, count: () => events.users.length, added: (event) => takeEvents([event]) });

// ---- what the server says

/** The present state, before each connection of the feed; returns the number to go on from. */
async function renew() {
  const analysis = await ask(`/rheed/stream/${dataId}/analysis`);
  state.analysis = analysis;
  state.newestMs = analysis.newest_unix_ms;
  events.reset(analysis.events);
  charts.setEvents(analysis.events);
  segments.reset(analysis.segments);
  regions.set(analysis);
  regions.refresh();
  calibration.show(analysis.calibration);
  again.show(analysis);
  takeValues(analysis.values, analysis.views);
  azimuths.refresh().catch(() => {});
  setBase();
  waterfall.load();
  series.want();
  if (["none", "failed"].includes(analysis.status)) tell(sentence(analysis.why || "this stream was stored without analysis"));
  return analysis.seq;
}

const feed = new Feed(dataId, {
  renew,
  link: (up) => showLink(up),
  gone: (error) => {
    setHidden(byId("notice"), false);
    say(byId("notice"), error.message);
  },
  hello: (message) => Object.assign(state.analysis, { origin_unix_ms: message.origin_unix_ms ?? state.analysis.origin_unix_ms, status: message.status }),
  batch: (message) => {
    state.newestMs = message.made_unix_ms ?? serverNow();
    state.analysis.frames_analysed = Math.max(state.analysis.frames_analysed, message.start + message.count);
    takeValues(message.values, message.views);
    takeEvents(message.events ?? []);
    if (state.base.counted === null) setBase();
    if (message.segments) segments.reset(message.segments);
    if (message.profile) waterfall.add((message.start + message.count) / state.analysis.fps, message.profile, message.lines);
    series.want();
  },
  event: (message) => takeEvents([message.event]),
  regions: (message) => {
    regions.set(message);
    series.want();
    if (message.complete) say(byId("region-help"), "The traces reach back to the first frame.");
  },
  progress: ({ fraction }) => {
    again.show({ progress: fraction });
    say(byId("region-help"), again.runs || fraction === null || fraction >= 1 ? "" : `Computed back to the first frame: ${Math.round(100 * fraction)} %`);
  },
  missing: (message) => again.show(message),
  lost: () => renew(),
  end: () => {
    refreshStanding();
    series.want();
    refreshInfo();
  },
});

function takeValues(values, views) {
  Object.assign(state.analysis, { values, views });
  const turning = (state.analysis.rpm ?? 0) > 0 || (views?.length ?? 0) > 0;
  readings.show(values, { turning, views: views ?? [], nameOf: (id) => visible(azimuths.nameOf(id)) });
  const lattice = charts.setLattice(values);
  charts.prefer(turning ? "oscillations_counted" : lattice);
  charts.setRateUnit(values.growth_rate_ml_s?.unit);
  showViews(views ?? [], turning);
  showCounted();
}

/** Names of azimuths, wherever they stand. */
function showNames() {
  takeValues(state.analysis.values, state.analysis.views);
  showFacts();
}

function takeEvents(fresh) {
  if (!fresh.length) return;
  events.add(fresh);
  charts.setEvents(events.sorted);
  setBase();
}

/**
 * Oscillations are counted in each segment; a note does not begin one, so what was counted up to it is taken off.
 * A mark of this moment lies ahead of the analysis: until that has come so far, nothing is counted since.
 */
async function setBase() {
  const mark = events.users.at(-1) ?? null;
  if (mark?.id !== state.base.mark?.id) state.base = { mark, counted: mark === null || CUTS.includes(mark.kind) ? 0 : null };
  const { base, analysis } = state;
  if (base.counted === null && !base.asked && analysis.frames_analysed / analysis.fps > mark.time_s) {
    base.asked = true;
    base.counted = await valueAt(dataId, "oscillations_counted", mark.time_s).catch(() => null);
    base.asked = false;
  }
  showCounted();
}

function showCounted() {
  const counted = state.analysis.values.oscillations_counted ?? { value: null, why: "" };
  const { mark, counted: before } = state.base;
  const value = counted.value === null ? null : before === null ? 0 : Math.max(0, counted.value - before);
  readings.showCounted({ ...counted, value, since: mark ? `“${visible(mark.label || mark.kind)}”` : "the start" });
}

/** By number, for the azimuth of a view moves by a degree or two; the one that is looked at stays in the list. */
function showViews(views, turning) {
  const select = byId("view");
  select.hidden = !turning;
  const listed = [...views].sort((a, b) => a.view_id - b.view_id).map(({ view_id: id, angle_deg: angle }) => [String(id), angle]);
  const kept = state.angles?.get(select.value);
  if (kept !== undefined && !listed.some(([id]) => id === select.value)) listed.push([select.value, kept]);
  if (turning && !listed.length) listed.push(["start", 0]);
  state.angles = new Map(listed);
  const choices = [["", "Turning"], ...listed.map(([id, angle]) => [id, id === "start" ? "Aligned at 0°" : `Aligned, ${visible(azimuths.nameOf(id)) || `view ${id}`} (${brief(angle, 3)}°)`])];
  const told = choices.map(([, text]) => text).join();
  if (select.dataset.told === told) return;
  const before = select.value;
  select.dataset.told = told;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
  select.value = choices.some(([value]) => value === before) ? before : "";
  align();
}

/** The picture at the azimuth that is chosen, as it turns where none is. */
function align() {
  const angle = state.angles?.get(byId("view").value) ?? null;
  if (angle !== picture.angle) picture.setAngle(angle);
}

/** How the analysis ended, which the feed's last words do not say. */
async function refreshStanding() {
  const analysis = await ask(`/rheed/stream/${dataId}/analysis`).catch(() => null);
  if (!analysis) return;
  state.analysis.status = analysis.status;
  again.show(analysis);
}

async function refreshInfo() {
  try {
    const info = await ask(`/dashboard/streams/${dataId}`);
    state.info = info;
    state.skew = info.server_unix_ms - Date.now();
    if (state.analysis) state.analysis.frames_stored = info.n_frames;
    showInfo(info);
    feed.now();
    if (state.analysis) regions.refresh();
  } catch (error) {
    if (error.status !== 404) return;
    clearInterval(timer);
    say(byId("name"), "No such stream");
    setHidden(byId("notice"), false);
    say(byId("notice"), error.message);
  }
}

function showInfo(info) {
  const name = visible(info.name);
  say(byId("name"), name);
  byId("name").title = name;
  document.title = `${name} · atomstream`;
  const [text, tone] = STATUS[info.status] ?? [info.status, ""];
  say(byId("status"), text);
  byId("status").className = `status ${tone}`;
  showFacts();
  say(byId("zarr-path"), info.zarr_path);
  setHidden(byId("mark"), info.status === "success");
  readings.showNoViews(info.views_why);
  health.show(info, state.analysis);
  showReport(info, state.analysis);
  setLinks();
}

function showFacts() {
  const info = state.info;
  if (!info) return;
  const shape = info.geometry ? `${info.geometry.width} × ${info.geometry.height} px` : null;
  const azimuth = visible(azimuths.ofAll ?? info.azimuth_label ?? "");
  say(byId("facts"), [info.sample && visible(info.sample), shape, `${brief(info.fps)} fps`, info.rpm ? `${brief(info.rpm)} rpm` : "not rotating", azimuth].filter(Boolean).join(" · "));
}

function showLink(up) {
  setHidden(byId("notice"), up);
  if (!up) say(byId("notice"), "The connection to the server is lost. Trying again; what is shown is not live.");
  document.body.dataset.link = up ? "up" : "down";
}

function showMoment(at) {
  const span = Math.min(view.to - view.from, 60);
  view.show(at - span / 2, at + span / 2);
  picture.freeze(at);
}

// ---- what the user does

function setLinks() {
  const step = Math.max(1, Math.round(Number(byId("csv-step").value) || 1));
  byId("csv").href = `/dashboard/streams/${dataId}/results.csv?step=${step}`;
}

function showRange() {
  const told = view.to - view.from < 20 ? (at) => clock(at, view.to - view.from < 1 ? 2 : 1) : duration;
  say(byId("range"), `${told(view.from)} – ${told(view.to)}`);
  byId("follow").setAttribute("aria-pressed", String(view.follow));
  for (const button of document.querySelectorAll("[data-last]")) {
    const last = button.dataset.last === "all" ? Infinity : Number(button.dataset.last);
    button.setAttribute("aria-pressed", String(view.follow && view.last === last));
  }
}

for (const button of document.querySelectorAll("[data-last]")) {
  button.addEventListener("click", () => view.showLast(button.dataset.last === "all" ? Infinity : Number(button.dataset.last)));
}
byId("follow").addEventListener("click", () => view.setFollow(!view.follow));
byId("view").addEventListener("change", align);
byId("csv-step").addEventListener("input", setLinks);
byId("copy-path").addEventListener("click", () => navigator.clipboard?.writeText(byId("zarr-path").textContent).then(() => tell("The path is in the clipboard."), () => {}));
byId("logout").addEventListener("click", logOut);
charts.addEventListener("moment", ({ detail: at }) => picture.freeze(at));
view.addEventListener("change", showRange);
regions.addEventListener("change", () => {
  charts.fillChoices(Object.entries(regions.columns).map(([name, column]) => [visible(name), column]));
  waterfall.setLines(regions.own);
});
document.addEventListener("keydown", (event) => {
  if (isTyping(event) || event.shiftKey) return;
  if (event.key.toLowerCase() === "f") view.setFollow(!view.follow);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  feed.now();
  series.want();
});
window.addEventListener("online", () => feed.now());
setUpTheme(() => {
  charts.rebuild();
  waterfall.soon();
});
setUpDrawer(byId("health-button"), byId("health"), refreshInfo);
setUpDrawer(byId("more-button"), byId("more"));
setInterval(() => readings.showAge(state.newestMs === null ? null : Math.max(0, (serverNow() - state.newestMs) / 1000), { ended: state.info?.status === "success" }), 200);
const timer = setInterval(refreshInfo, INFO_EACH_MS);
showRange();
refreshInfo().then(() => feed.open());
picture.open();
