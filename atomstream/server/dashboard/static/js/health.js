// Backlog, clock and disk; and the report of an ended stream.
import { byId, el, setText } from "./dom.js";
import { ageText, brief, bytesText, duration, momentText, STATUS, visible } from "./format.js";

const PLACES = 6;

export class Health {
  /** `gaps`: events of kind "gap", by time. `up`: the server answers. Without it nothing is known, and no earlier warning is repeated. */
  show(info, up, gaps) {
    const facts = up ? healthFacts(info, gaps) : [{ name: "Server", text: "does not answer; the page tries again", brief: "No connection", tone: "bad" }];
    list(byId("health-list"), facts);
    const worst = facts.some(({ tone }) => tone === "bad") ? "bad" : facts.some(({ tone }) => tone === "warn") ? "warn" : "good";
    byId("lamp").className = `lamp ${worst === "good" && (info.status === "success" || !info.throughput) ? "" : worst}`;
    setText(byId("health-text"), headline(info, facts.find(({ tone }) => tone === worst)));
  }
}

/** The label of the button: the first problem, if there is one. */
function headline(info, trouble) {
  if (trouble) return trouble.brief ?? trouble.name;
  if (info.status === "success") return "Link";
  return info.throughput ? "On time" : "No data yet";
}

function healthFacts(info, gaps) {
  const { throughput, analysis } = info;
  const live = info.status === "stream_active";
  const chunkS = info.geometry ? info.geometry.chunk_size / info.fps : 0;
  const behind = Math.max(0, analysis.frames_stored - analysis.frames_analysed);
  const facts = [
    { name: "Frames stored", text: `${count(info.frames_stored)} in ${count(info.chunks_stored)} chunks` },
    { name: "Missing frames", brief: "Frames missing", text: missingFrames(gaps), tone: gaps.length ? "warn" : "" },
    { name: "Missing chunks", brief: "Chunks missing", text: info.chunks_missing ? `${count(info.chunks_missing)}: ${info.missing.join(", ")}` : "none", tone: info.chunks_missing ? "warn" : "" },
    { name: "Not delivered by the client", brief: "Chunks lost", text: info.lost ? `chunks ${info.lost}` : "none", tone: info.lost ? "bad" : "" },
  ];
  facts.push({ name: "Analysis behind storage", brief: "Analysis behind", text: `${count(behind)} frames (${duration(behind / info.fps)})`, tone: live && behind > 3 * info.fps * Math.max(1, chunkS) ? "warn" : "" });
  if (throughput) {
    if (live) facts.push({ name: "Last chunk", brief: `Silent for ${ageText(throughput.silent_s)}`, text: `${ageText(throughput.silent_s)} ago`, tone: throughput.silent_s > 3 * Math.max(1, chunkS) + 5 ? "warn" : "" });
    const late = live && throughput.silent_s <= 3 * Math.max(1, chunkS) + 5 && throughput.late_s > 3 * Math.max(1, chunkS) + 2;
    facts.push({ name: "Stored after exposure", brief: `${ageText(throughput.late_s)} late`, text: `${brief(throughput.late_s, 3)} s`, tone: late ? "warn" : "" });
    if (throughput.late_growth !== null && live) facts.push({ name: "Backlog of the client", brief: "Backlog grows", text: throughput.late_growth > 0.05 && late ? `grows by ${brief(60 * throughput.late_growth, 2)} s a minute` : throughput.late_growth < -0.05 ? "shrinks" : "steady", tone: throughput.late_growth > 0.05 && late ? "bad" : "" });
    if (throughput.frames_per_s !== null) facts.push({ name: "Frames received", text: `${brief(throughput.frames_per_s, 3)} of ${brief(info.fps, 4)} per second` });
    if (throughput.bytes_per_s !== null) facts.push({ name: "Data received", text: `${bytesText(throughput.bytes_per_s)}/s` });
    const clock = throughput.clock_offset_ms;
    facts.push({ name: "Camera computer's clock", text: clock === null ? "not measured" : `corrected by ${brief(clock, 4)} ± ${brief(throughput.clock_uncertainty_ms ?? NaN, 2)} ms` });
  }
  const full = info.disk_full_in_s;
  facts.push({ name: "Disk of the server", brief: `Disk full in ${ageText(full ?? 0)}`, text: `${bytesText(info.disk_free_bytes)} free${full ? `, full in ${ageText(full)} at the rate of all streams` : ""}`, tone: full !== null && full < 3600 ? "bad" : full !== null && full < 6 * 3600 ? "warn" : "" });
  return facts;
}

/** How many frames are missing, and where: "15 in 2 places: 3 at 0:12.2, 12 at 0:41.0". */
export function missingFrames(gaps) {
  if (!gaps.length) return "none";
  const places = gaps.slice(0, PLACES).map(({ value, time_s: at }) => `${count(value)} at ${duration(at)}`);
  const rest = gaps.length > PLACES ? `, and ${gaps.length - PLACES} more (see Events)` : "";
  const total = count(gaps.reduce((sum, { value }) => sum + value, 0));
  return `${total} in ${gaps.length} ${gaps.length === 1 ? "place" : "places"}: ${places.join(", ")}${rest}`;
}

export function showReport(info, analysis, gaps) {
  const section = byId("report");
  section.hidden = info.status !== "success" || !analysis || (["waiting", "running"].includes(info.analysis.status) && !info.analysis.reanalysis);
  if (section.hidden) return;
  const whole = info.chunks_missing === 0 && !info.lost;
  list(byId("report-list"), [
    { name: "Status", text: STATUS[info.status]?.[0] ?? info.status },
    { name: "Began", text: momentText(analysis.origin_unix_ms ?? Date.parse(info.made)) },
    { name: "Length", text: duration(info.n_frames / info.fps) },
    { name: "Frames", text: `${count(info.frames_stored)} stored, ${count(info.analysis.frames_analysed)} analysed` },
    { name: "Missing frames", text: missingFrames(gaps), tone: gaps.length ? "warn" : "" },
    { name: "Chunks", text: whole ? `${count(info.chunks_stored)}, none missing` : `${count(info.chunks_stored)} stored, ${count(info.chunks_missing)} missing`, tone: whole ? "" : "warn" },
    { name: "Segments", text: count(analysis.segments.length) },
    { name: "Sample", text: info.sample ?? "none" },
    { name: "Project", text: info.project ?? "none" },
    { name: "Tags", text: info.tags.join(", ") || "none" },
    { name: "Id", text: info.data_id },
  ]);
}

function list(element, facts) {
  const content = JSON.stringify(facts);
  if (element.dataset.content === content) return;
  element.dataset.content = content;
  element.replaceChildren(...facts.map(({ name, text, tone }) => el("div", {}, el("dt", {}, name), el("dd", { class: `num ${tone ?? ""}`, dir: "auto" }, visible(text)))));
}

function count(number) {
  return Number(number).toLocaleString("en-GB").replaceAll(",", "\u202f");
}
