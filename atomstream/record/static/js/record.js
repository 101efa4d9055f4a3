// The capture page: shows the state that the recorder sends, and sends the user's actions.
import { ask, logOut, RequestError, socketUrl } from "/dashboard/static/js/api.js";
import { byId, el, isTyping, setHidden, setText } from "/dashboard/static/js/dom.js";
import { bytesText, clock, momentText, visible } from "/dashboard/static/js/format.js";
import { KeyedList } from "/dashboard/static/js/keyed_list.js";
import { notify } from "/dashboard/static/js/notifications.js";
import { setUpTheme } from "/dashboard/static/js/theme.js";
import { setUpCrop } from "./crop.js";
import { showExposure } from "./exposure.js";
import { LivePicture } from "./live_picture.js";
import { clockTime, Marks } from "./marks.js";
import { number, SourceDialog } from "./source_dialog.js";

const RETRY_MS = 1000;
const SILENT_MS = 2500;
const WATCH_EACH_MS = 500;
const STALE_S = 3;
const BEHIND_S = 1.5;
const WORDS = { idle: "Not recording", recording: "Recording", paused: "Paused", finishing: "Saving" };
const WHERE = { recording: "being recorded", saved: "on this computer", interrupted: "interrupted; saved until then", sent: "on the server", gone: "not on this computer any more" };
const BEFORE_S = [0, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

const FIELDS = ["name", "sample", "rpm"];

let state = null;
let heard = 0;
let heardAt = 0;
let entered = null;
const marks = new Marks();
const source = new SourceDialog(() => state?.camera?.plan ?? null);
const recordings = new KeyedList(byId("recordings"));
const messages = new KeyedList(byId("messages"));

function listen() {
  const socket = new WebSocket(socketUrl("/record/state"));
  socket.onmessage = (event) => {
    state = JSON.parse(event.data);
    heard = Date.now();
    heardAt = performance.now();
    show();
  };
  socket.onclose = async () => {
    showGone();
    try {
      await ask("/session");
    } catch (error) {
      if (error instanceof RequestError && error.status === 401) {
        location.replace("/login");
        return;
      }
    }
    setTimeout(listen, RETRY_MS);
  };
}

function show() {
  const { state: now, camera, recording, dashcam, disk } = state;
  const active = now !== "idle";
  document.body.classList.remove("gone");
  setHidden(byId("mark"), false);
  byId("state-panel").dataset.state = now;
  setText(byId("state-word"), WORDS[now]);
  setText(byId("state-time"), active && recording ? clock(Math.floor(recording.seconds), 0) : "");
  byId("state-line").replaceChildren(...sentence(now, recording, camera, disk));
  const runs = camera?.state === "running";
  setHidden(byId("record"), now !== "idle");
  byId("record").disabled = !runs;
  setHidden(byId("pause"), now !== "recording" && now !== "paused");
  setHidden(byId("stop"), now !== "recording" && now !== "paused");
  const label = now === "paused" ? "Go on " : "Pause ";
  if (byId("pause").firstChild.data !== label) byId("pause").firstChild.data = label;
  setHidden(byId("before-row"), now !== "idle");
  showDashcam(dashcam);
  setText(byId("camera-line"), cameraText(camera));
  byId("camera-line").classList.toggle("bad", Boolean(camera?.problem));
  if (camera === null) setText(byId("stage-empty"), "No camera is open: choose one with “Camera”.");
  setText(byId("server-line"), serverText(state.server));
  source.setLocked(active);
  showFields(active ? recording : null);
  if (state.exposure) showExposure(state.exposure);
  marks.show(active || (recording && !state.early_marks.length) ? recording.marks : state.early_marks, active);
  recordings.show(state.recordings.map((one) => [one.data_id, JSON.stringify(one), () => row(one)]));
  messages.show(state.messages.map((one) => [`${one.time_ms}${one.text}`, "", () => el("li", {}, el("span", { class: "num" }, clockTime(one.time_ms)), el("span", { dir: "auto" }, visible(one.text)))]).reverse());
  document.title = `${active ? `${WORDS[now]} ${byId("state-time").textContent} · ` : ""}atomstream recorder`;
}

/** During a recording the fields show its own values, wherever it was started; then what was entered here before. */
function showFields(recording) {
  if (recording && !entered) entered = FIELDS.map((id) => byId(id).value);
  const values = recording ? [visible(recording.name), visible(recording.sample ?? ""), String(recording.rpm)] : entered;
  FIELDS.forEach((id, k) => {
    byId(id).disabled = Boolean(recording);
    if (values && byId(id).value !== values[k]) byId(id).value = values[k];
  });
  if (!recording) entered = null;
}

/** The state in one line: frames lost, saved up to, disk left; after a recording, how it ended. */
function sentence(now, recording, camera, disk) {
  const parts = [];
  if (now !== "idle" && recording) {
    const lost = `${recording.lost} frame${recording.lost === 1 ? "" : "s"} lost`;
    parts.push(recording.lost ? el("span", { class: "bad" }, lost) : lost);
    parts.push(recording.saved_ms === null ? "nothing saved yet" : `saved up to ${clockTime(recording.saved_ms)}`);
    if (recording.waits_for_rate) parts.push("waits for frames, because the frame rate is not known yet");
    if (recording.waiting_frames > 600) parts.push(`${recording.waiting_frames} frames to be read from the dashcam`);
  } else if (recording) {
    parts.push(recording.problem ? el("span", { class: "bad" }, visible(recording.outcome)) : visible(recording.outcome));
  }
  if (disk.seconds_left !== null) {
    const text = `${now === "idle" ? "room for" : "disk for"} ${left(disk.seconds_left)}`;
    parts.push(disk.seconds_left < 3600 ? el("span", { class: "warn" }, text) : text);
  }
  if (camera?.state === "running" && camera.silent_s > STALE_S) parts.push(el("span", { class: "bad" }, `no frame for ${Math.round(camera.silent_s)} s`));
  else if (camera?.state === "running" && camera.behind_s > BEHIND_S) parts.push(el("span", { class: "warn" }, `the picture is ${Math.round(camera.behind_s)} s behind, because this computer is too slow`));
  return parts.flatMap((part, k) => (k ? [" · ", part] : [part]));
}

function left(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

function showDashcam(dashcam) {
  const list = byId("before");
  const kept = dashcam ? dashcam.seconds : 0;
  const offered = BEFORE_S.filter((seconds) => seconds === 0 || seconds <= kept + 1);
  if (list.options.length !== offered.length) {
    const chosen = list.value;
    list.replaceChildren(...offered.map((seconds) => el("option", { value: seconds }, seconds === 0 ? "now" : `${span(seconds)} ago`)));
    list.value = offered.includes(Number(chosen)) ? chosen : "0";
  }
  const size = dashcam ? bytesText(dashcam.disk_bytes + dashcam.memory_bytes) : "";
  setText(byId("dashcam-line"), !dashcam ? "" : dashcam.problem || (dashcam.limit_s === 0 ? "The dashcam is off." : `The last ${clock(Math.floor(kept), 0)} of at most ${clock(dashcam.limit_s, 0)} are kept: ${size} of at most ${bytesText(dashcam.limit_bytes)}.`));
}

function span(seconds) {
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${seconds / 60} min` : `${seconds / 3600} h`;
}

function cameraText(camera) {
  if (!camera) return "No camera";
  if (camera.problem) return camera.problem;
  if (camera.state === "ended") return `${visible(camera.source)} has ended`;
  const [height, width] = camera.shape;
  if (!width) return `${visible(camera.source)}: waits for its first frame`;
  const rate = camera.measured_fps === null ? "" : `, ${camera.measured_fps.toFixed(1)} frames per second`;
  const missing = camera.missing + camera.incomplete + camera.late;
  const back = camera.reconnects ? `, opened again ${camera.reconnects} ×` : "";
  return `${visible(camera.source)}: ${width} × ${height} ${camera.dtype}${rate}${missing ? `, ${missing} missing or incomplete` : ""}${back}`;
}

function serverText(server) {
  if (!server.endpoint) return server.note;
  const one = server.waiting_chunks === 1;
  if (server.standing_still) return `Server ${server.endpoint}: ${server.standing_still} ${server.waiting_chunks} ${one ? "chunk waits" : "chunks wait"} on this computer; nothing is lost.`;
  return `Server ${server.endpoint}: ${server.waiting_chunks} ${one ? "chunk is" : "chunks are"} on ${one ? "its" : "their"} way.`;
}

function row(one) {
  const state = one.state === "interrupted" ? "warn" : "";
  return el("tr", {},
    el("td", { dir: "auto" }, visible(one.name)), el("td", { dir: "auto" }, visible(one.sample)),
    el("td", { class: "num" }, momentText(one.began_ms)), el("td", { class: "num" }, clock(Math.floor(one.seconds), 0)),
    el("td", { class: "num" }, String(one.frames)), el("td", { class: one.lost ? "num bad" : "num" }, String(one.lost)),
    el("td", { class: state }, WHERE[one.state] ?? visible(String(one.state))));
}

/** The state comes four times a second. A recorder that hangs does not close the connection. */
function watch() {
  if (heardAt && performance.now() - heardAt > SILENT_MS && !document.body.classList.contains("gone")) showGone();
}

/** The recorder does not answer: what is shown is not so any more. */
function showGone() {
  byId("state-panel").dataset.state = "gone";
  setText(byId("state-word"), "Recorder does not answer");
  setText(byId("state-time"), "");
  const saved = state?.state !== "idle" && state?.recording?.saved_ms ? `The recording was saved up to ${clockTime(state.recording.saved_ms)}. ` : "";
  setText(byId("state-line"), heard ? `It answered last at ${clockTime(heard)}. ${saved}If it does not come back, start atomstream record again: it shows the new address.` : "");
  for (const id of ["record", "pause", "stop", "mark", "before-row"]) setHidden(byId(id), true);
  setText(byId("camera-line"), "");
  document.body.classList.add("gone");
}

/** Size of the frame if a rectangle on it can become a crop: a crop comes before binning, turning and mirroring. */
function croppable() {
  const camera = state?.camera;
  if (state?.state !== "idle" || !camera || !camera.shape[1]) return null;
  const { bin_factor: factor, rotate, flip } = camera.plan;
  return factor === 1 && rotate === 0 && flip === "" ? { width: camera.shape[1], height: camera.shape[0] } : null;
}

async function act(path, body = {}) {
  try {
    await ask(path, { method: "POST", body });
  } catch (error) {
    notify(error.message);
  }
}

function record() {
  if (state?.state !== "idle" || state.camera?.state !== "running") return;
  try {
    const name = byId("name").value.trim() || `RHEED ${new Date().toLocaleString("sv-SE").slice(0, 16)}`;
    const body = { name, sample: byId("sample").value, rpm: number(byId("rpm")), before_s: Number(byId("before").value) };
    act("/record/start", body);
  } catch (error) {
    notify(error.message);
  }
}

function pauseOrGoOn() {
  if (state?.state === "recording") act("/record/pause");
  else if (state?.state === "paused") act("/record/resume");
}

byId("record").addEventListener("click", record);
byId("pause").addEventListener("click", pauseOrGoOn);
byId("stop").addEventListener("click", () => act("/record/stop"));
byId("logout").addEventListener("click", logOut);
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.shiftKey || isTyping(event)) return;
  if (event.key.toLowerCase() === "r") record();
  else if (event.key.toLowerCase() === "p") pauseOrGoOn();
});
setUpCrop(croppable, (x, y, width, height) => {
  const [left, top] = state.camera.plan.crop ?? [0, 0];
  source.show({ crop: [left + x, top + y, width, height] });
});
setUpTheme();
setInterval(watch, WATCH_EACH_MS);
ask("/session").then(() => {
  listen();
  new LivePicture();
}, () => location.replace("/login"));
