// The page of one stream: creates its parts and passes messages of the server to them.
import { ask, at, logOut } from "./api.js";
import { Manage } from "./manage.js";
import { Reanalysis } from "./reanalysis.js";
import { Alarms } from "./alarms.js";
import { Azimuths } from "./azimuths.js";
import { Calibration } from "./calibration.js";
import { Charts } from "./charts.js";
import { DarkFrame } from "./dark_frame.js";
import { byId, el, isTyping, setText, setHidden, setUpDrawer } from "./dom.js";
import { Events } from "./events.js";
import { Feed } from "./feed.js";
import { brief, clock, duration, visible } from "./format.js";
import { freshness } from "./freshness.js";
import { FullScreen } from "./full_screen.js";
import { Health, showReport } from "./health.js";
import { Annotations } from "./annotations.js";
import { Look } from "./look.js";
import { notify } from "./notifications.js";
import { Picture } from "./picture.js";
import { showProblems } from "./problems.js";
import { Values, sentence } from "./values.js";
import { mayWrite, setRight } from "./rights.js";
import { RegionNames } from "./region_names.js";
import { Regions } from "./regions.js";
import { Segments } from "./segments.js";
import { Series } from "./series.js";
import { SignalLanes } from "./signals.js";
import { setUpTheme } from "./theme.js";
import { TimeRange } from "./time_range.js";
import { Traces } from "./traces.js";
import { Waterfall } from "./waterfall.js";
import { Zoom } from "./zoom.js";

const INFO_EACH_MS = 2000;
const INFO_TIMEOUT_MS = 2500;
// Results come ten times a second, which nobody can read; each change of a text costs a layout of the page.
const VALUES_EACH_MS = 250;
const AGE_EACH_MS = 500;
// The kinds of marks that begin a segment: SEGMENT_KINDS of atomstream/results.py.
const CUTS = ["shutter", "laser", "growth", "pause", "rotation"];
const dataId = decodeURIComponent(location.pathname.split("/").at(-1));

const view = new TimeRange();
const series = new Series(dataId, view);
const charts = new Charts(view, series);
const lanes = new SignalLanes(dataId, view, charts.panels[1].box);
const picture = new Picture(dataId, new Look(), new DarkFrame());
const regions = new Regions(dataId, picture);
new RegionNames(regions);
new Zoom((event) => !regions.mode && !event.target.matches(".grab, .handle"));
new FullScreen();
const tiles = new Values();
const events = new Events(view, ({ time_s: at }) => showMoment(at));
const segments = new Segments(({ start_s: from, end_s: to }) => view.show(from, to));
const waterfall = new Waterfall(dataId, view);
const traces = new Traces(dataId, view, { values: () => state.analysis?.values ?? {}, shownTime: () => picture.frozen });
const health = new Health();
const alarms = new Alarms(dataId, () => state.analysis?.values ?? {});
const manage = new Manage(dataId, () => state.info, () => refreshInfo());
const reanalysis = new Reanalysis(dataId, () => feed.open());
const calibration = new Calibration(dataId, () => state.analysis, () => feed.open());
const azimuths = new Azimuths(dataId, showNames);
const state = { analysis: null, info: null, skew: 0, serverMinusPage: -Infinity, newestS: null, madeMs: null, storedMs: null, infoAt: 0, feedUp: true, infoUp: true, gone: null, valuesAt: -Infinity, valuesTimer: null };

// The later of two clocks: the one that counts since the page was opened stops while the computer sleeps, and the
// computer's time of day may be set back. So no number looks newer than it is.
const serverNow = () => Math.max(Date.now() + state.skew, performance.now() + state.serverMinusPage);
const elapsed = (ms) => (state.analysis?.origin_unix_ms ? duration((ms - state.analysis.origin_unix_ms) / 1000) : new Date(ms).toLocaleTimeString());
new Annotations(dataId, { now: serverNow, elapsed, count: () => events.users.length, find: (id) => events.all.get(id), changed: applyEvent });

// ---- messages of the server

/** Loads the current state before each connection of the feed; returns the last message number. */
async function renew() {
  const analysis = await ask(`/rheed/stream/${dataId}/analysis`);
  state.analysis = analysis;
  state.madeMs = analysis.newest_unix_ms;
  state.newestS = analysis.newest_s;
  events.reset(analysis.events);
  charts.setEvents(analysis.events);
  segments.reset(analysis.segments);
  // `columns` of this reply has the unit of each column. The regions need another map, columns by name, which refresh()
  // requests.
  regions.set({ ...analysis, columns: undefined });
  regions.refresh();
  calibration.show(analysis.calibration);
  reanalysis.show(analysis);
  applyValues(analysis.values, analysis.views);
  azimuths.refresh().catch(() => {});
  showCounted();
  waterfall.load();
  series.requestSoon();
  if (["none", "failed"].includes(analysis.status)) notify(sentence(analysis.why || "this stream was stored without analysis"));
  return analysis.seq;
}

const feed = new Feed(dataId, {
  renew,
  link: (up) => {
    state.feedUp = up;
    showLink();
  },
  gone: showGone,
  hello: (message) => Object.assign(state.analysis, { origin_unix_ms: message.origin_unix_ms ?? state.analysis.origin_unix_ms, status: message.status }),
  batch: (message) => {
    state.madeMs = message.made_unix_ms ?? serverNow();
    state.storedMs = message.stored_unix_ms ?? state.storedMs;
    state.newestS = message.newest_s ?? state.newestS;
    const progress = state.info?.analysis;
    if (progress) Object.assign(progress, { newest_s: state.newestS, newest_stored_s: Math.max(progress.newest_stored_s ?? 0, state.newestS ?? 0) });
    if (message.segments) {
      segments.reset(message.segments);
      state.analysis.segments = message.segments;
    }
    Object.assign(state.analysis, { values: message.values, views: message.views });
    showValuesSoon();
    applyEvents(message.events ?? []);
    if (message.profile) waterfall.add((message.start + message.count) / state.analysis.fps, message.profile, message.lines);
    series.requestSoon();
  },
  event: applyEvent,
  regions: (message) => {
    regions.set(message);
    series.requestSoon();
    if (message.complete) setText(byId("region-help"), "The traces are complete back to the first frame.");
  },
  progress: ({ fraction }) => {
    reanalysis.show({ progress: fraction });
    setText(byId("region-help"), reanalysis.isRunning || fraction === null || fraction >= 1 ? "" : `Computed back to the first frame: ${Math.round(100 * fraction)} %`);
  },
  missing: (message) => reanalysis.show(message),
  lost: () => renew(),
  end: () => {
    refreshStatus();
    series.requestSoon();
    refreshInfo();
  },
});

function applyValues(newest, views) {
  Object.assign(state.analysis, { values: newest, views });
  showValues();
}

/** Shows the newest values at once, or with those of the next batches if they were shown a moment ago. */
function showValuesSoon() {
  if (state.valuesTimer) return;
  const wait = state.valuesAt + VALUES_EACH_MS - performance.now();
  if (wait > 0) state.valuesTimer = setTimeout(showValues, wait);
  else showValues();
}

function showValues() {
  clearTimeout(state.valuesTimer);
  Object.assign(state, { valuesTimer: null, valuesAt: performance.now() });
  const { values: newest, views } = state.analysis;
  const turning = (state.analysis.rpm ?? 0) > 0 || (views?.length ?? 0) > 0;
  tiles.show(newest, { turning, views: views ?? [], nameOf: (id) => visible(azimuths.nameOf(id)) });
  const lattice = charts.setLattice(newest);
  charts.prefer(turning ? "oscillations_counted" : lattice);
  charts.setRateUnit(newest.growth_rate_ml_s?.unit);
  showViews(views ?? [], turning);
  traces.setViews(turning, (views ?? []).map(({ view_id: id, angle_deg: angle }) => ({ angle, name: visible(azimuths.nameOf(id)) || `view ${id}` })));
  showCounted();
}

/** Updates all places that show azimuth labels. */
function showNames() {
  showValues();
  showFacts();
}

function applyEvents(added) {
  if (!added.length) return;
  events.add(added);
  charts.setEvents(events.sorted);
  showCounted();
}

/** An event of the user that was set, corrected or deleted. */
function applyEvent(message) {
  events.apply(message);
  charts.setEvents(events.sorted);
  showCounted();
}

/**
 * The analysis counts since the user's last mark, over pauses and new segments. A mark may be newer than the analysed frames: then nothing has been counted since it. Each mark begins that count, also one that begins a segment.
 */
function showCounted() {
  const mark = events.users.at(-1) ?? null;
  const { values } = state.analysis;
  const began = values.counted_since_s?.value ?? null;
  const why = Object.keys(values).length ? "the stream was analysed by an earlier version: analyse it again" : "no results yet";
  const counted = values.oscillations_since_mark ?? { value: null, why };
  const isAhead = (one) => one !== null && began !== null && one.time_s > began + 0.001;
  tiles.showCounted({ ...(isAhead(mark) ? { value: 0, sigma: null, note: "" } : counted), since: markName(mark) });
  const cut = events.users.filter(({ kind }) => CUTS.includes(kind)).at(-1) ?? null;
  tiles.showLayersSince(markName(cut), isAhead(cut));
}

function markName(mark) {
  return mark ? `“${visible(mark.label || mark.kind)}”` : "the start";
}

/** Sorted by number, because the azimuth of a view moves by a degree or two. The selected view stays in the list. */
function showViews(views, turning) {
  const select = byId("view");
  select.hidden = !turning;
  const listed = [...views].sort((a, b) => a.view_id - b.view_id).map(({ view_id: id, angle_deg: angle }) => [String(id), angle]);
  const kept = state.angles?.get(select.value);
  if (kept !== undefined && !listed.some(([id]) => id === select.value)) listed.push([select.value, kept]);
  if (turning && !listed.length) listed.push(["start", 0]);
  state.angles = new Map(listed);
  const choices = [["", "Turning"], ...listed.map(([id, angle]) => [id, id === "start" ? "Aligned at 0°" : `Aligned, ${visible(azimuths.nameOf(id)) || `view ${id}`} (${brief(angle, 3)}°)`])];
  const content = choices.map(([, text]) => text).join();
  if (select.dataset.content === content) return;
  const before = select.value;
  select.dataset.content = content;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
  select.value = choices.some(([value]) => value === before) ? before : "";
  align();
}

/** Shows the image at the selected azimuth, or all frames if none is selected. */
function align() {
  const angle = state.angles?.get(byId("view").value) ?? null;
  if (angle !== picture.angle) picture.setAngle(angle);
}

/** Loads how the analysis ended: the feed's last message does not contain it. */
async function refreshStatus() {
  const analysis = await ask(`/rheed/stream/${dataId}/analysis`).catch(() => null);
  if (!analysis) return;
  state.analysis.status = analysis.status;
  reanalysis.show(analysis);
}

async function refreshInfo() {
  try {
    const info = await ask(`/dashboard/streams/${dataId}`, { signal: AbortSignal.timeout(INFO_TIMEOUT_MS) });
    Object.assign(state, { infoUp: true, infoAt: performance.now() });
    state.info = info;
    const couldWrite = mayWrite();
    setRight(info.right);
    if (mayWrite() !== couldWrite) regions.draw();
    Object.assign(state, { skew: info.server_unix_ms - Date.now(), serverMinusPage: info.server_unix_ms - performance.now() });
    state.newestS = Math.max(state.newestS ?? -Infinity, info.analysis.newest_s ?? -Infinity);
    if (!Number.isFinite(state.newestS)) state.newestS = null;
    showLink();
    showInfo(info);
    alarms.heard(info.alarms);
    showProblems(info.problems.map((text) => ({ text })));
    feed.now();
    if (state.analysis) regions.refresh();
  } catch (error) {
    if (!error.status) {
      state.infoUp = false;
      showLink();
    }
    if (error.status === 503) showProblems([{ text: error.message }]);
    if (error.status === 404 || error.status === 410) showGone(error);
  }
}

/** The stream was deleted, or there is none: the numbers that are shown belong to nothing any more. */
function showGone(error) {
  clearInterval(timer);
  state.gone = error;
  const deleted = error.status === 410;
  const name = state.info ? visible(state.info.name) : "";
  setText(byId("name"), !deleted ? "No such stream" : name ? `${name} (deleted)` : "Deleted stream");
  document.title = `${byId("name").textContent} · atomstream`;
  byId("lamp").className = "lamp bad";
  setText(byId("health-text"), deleted ? "Deleted" : "No stream");
  showFresh();
  setHidden(byId("notice"), false);
  setText(byId("notice"), error.message);
}

function showInfo(info) {
  const name = visible(info.name);
  setText(byId("name"), name);
  byId("name").title = name;
  document.title = `${name} · atomstream`;
  showFresh();
  showFacts();
  setText(byId("zarr-path"), info.zarr_path);
  setHidden(byId("mark"), info.status === "success");
  tiles.showNoViews(info.views_why);
  if (tiles.setNoFrames(info.status === "success" && info.frames_stored === 0)) {
    setText(byId("stage-empty"), "No frames were received.");
    if (state.analysis) showValues();
  }
  health.show(info, state.feedUp && state.infoUp, events.gaps);
  showReport(info, state.analysis, events.gaps);
  setLinks();
}

/** What the rules of retention removed; null if nothing. */
function thinned(info) {
  if (!info.thinning) return null;
  return info.thinning.every ? `Thinned: 1 frame in ${info.thinning.every} kept, and those near events` : "Frames removed; results kept";
}

function showFacts() {
  const info = state.info;
  if (!info) return;
  const shape = info.geometry ? `${info.geometry.width} × ${info.geometry.height} px` : null;
  const azimuth = visible(azimuths.ofAll ?? info.azimuth_label ?? "");
  setText(byId("facts"), [thinned(info), info.sample && visible(info.sample), shape, `${brief(info.fps)} fps`, info.rpm ? `${brief(info.rpm)} rpm` : "not rotating", azimuth].filter(Boolean).join(" · "));
}

/** Seconds since the newest chunk was stored; null if there is none. */
function silence(info) {
  const stored = state.storedMs === null ? Infinity : Math.max(0, (serverNow() - state.storedMs) / 1000);
  if (info.throughput) return Math.min(stored, info.throughput.silent_s + (performance.now() - state.infoAt) / 1000);
  return state.madeMs === null ? null : Math.max(0, (serverNow() - state.madeMs) / 1000);
}

/** The age of the newest frame with results, from its exposure; a clock that is ahead makes no result newer than it is. */
function resultAge() {
  const origin = state.analysis?.origin_unix_ms;
  if (state.madeMs === null || state.newestS === null || !origin) return null;
  return Math.max(0, serverNow() - state.madeMs, serverNow() - origin - 1000 * state.newestS) / 1000;
}

function showFresh() {
  const { info, gone } = state;
  if (gone) {
    setText(byId("status"), gone.status === 410 ? "Deleted" : "");
    byId("status").className = "status bad";
    tiles.showAge({ text: gone.status === 410 ? "This stream was deleted. These are the last numbers that this page received." : "", stale: true });
    setHidden(byId("abandoned"), true);
    return;
  }
  if (!info) return;
  const fresh = freshness({
    status: info.status,
    link: state.feedUp && state.infoUp,
    chunkS: info.geometry ? info.geometry.chunk_size / info.fps : 0,
    silentS: silence(info),
    ageS: resultAge(),
    analysis: info.analysis,
  });
  setText(byId("status"), fresh.label);
  byId("status").className = `status ${fresh.tone}`;
  tiles.showAge(fresh);
  setText(byId("abandoned-text"), fresh.abandoned);
  setHidden(byId("abandoned"), !fresh.abandoned);
}

function showLink() {
  const up = state.feedUp && state.infoUp;
  showFresh();
  if (state.info && !state.gone) health.show(state.info, up, events.gaps);
  if (state.gone) return;
  setHidden(byId("notice"), up);
  if (!up) setText(byId("notice"), "The connection to the server is lost. Reconnecting; the values on this page are not live.");
  document.body.dataset.link = up ? "up" : "down";
}

function showMoment(at) {
  const span = Math.min(view.to - view.from, 60);
  view.show(at - span / 2, at + span / 2);
  picture.freeze(at);
}

// ---- actions of the user

function setLinks() {
  const step = Math.max(1, Math.round(Number(byId("csv-step").value) || 1));
  for (const link of document.querySelectorAll("[data-export]")) {
    const { export: ending } = link.dataset;
    const every = ["pdf", "mp4", "png"].includes(ending) ? "" : `&step=${step}`;
    const time = ending === "png" && picture.frozen !== null ? `&time=${picture.frozen}` : "";
    link.href = at(`/rheed/stream/${dataId}/export?to=${ending}${every}${time}`);
  }
}

function showRange() {
  const format = view.to - view.from < 20 ? (at) => clock(at, view.to - view.from < 1 ? 2 : 1) : duration;
  setText(byId("range"), `${format(view.from)} – ${format(view.to)}`);
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
byId("compare").href = at(`/compare/${encodeURIComponent(dataId)}`);
byId("csv-step").addEventListener("input", setLinks);
document.querySelector('[data-export="png"]').addEventListener("click", setLinks); // of the picture that is shown now
byId("copy-path").addEventListener("click", () => navigator.clipboard?.writeText(byId("zarr-path").textContent).then(() => notify("The path was copied to the clipboard."), () => {}));
byId("logout").addEventListener("click", logOut);
charts.addEventListener("moment", ({ detail: at }) => picture.freeze(at));
view.addEventListener("change", showRange);
// Also without a change of the time range: the trace of a new region is computed back to the first frame.
series.addEventListener("data", () => traces.soon(true));
regions.addEventListener("change", () => {
  charts.fillChoices(Object.entries(regions.columns).map(([name, column]) => [visible(name), column]));
  waterfall.setLines(regions.own);
  traces.setRegions(regions.columns, regions.own);
});
document.addEventListener("keydown", (event) => {
  if (isTyping(event) || event.shiftKey) return;
  if (event.key.toLowerCase() === "f") view.setFollow(!view.follow);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  feed.now();
  series.requestSoon();
});
window.addEventListener("online", () => feed.now());
setUpTheme(() => {
  charts.rebuild();
  lanes.rebuild();
  lanes.requestSoon();
  waterfall.soon();
  traces.chart.shape = "";
  traces.redraw();
});
setUpDrawer(byId("health-button"), byId("health"), refreshInfo);
setUpDrawer(byId("more-button"), byId("more"));
byId("abandoned-end").addEventListener("click", () => manage.open("end"));
setInterval(showFresh, AGE_EACH_MS);
const timer = setInterval(refreshInfo, INFO_EACH_MS);
showRange();
refreshInfo().then(() => feed.open());
picture.open();
