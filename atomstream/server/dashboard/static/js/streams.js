// The list of streams: live ones first, then the newest; the server does the search.
import { ask, at, logOut } from "./api.js";
import { byId, el, isTyping, setText, setHidden } from "./dom.js";
import { duration, momentText, STATUS, visible } from "./format.js";
import { ListFilters } from "./list_filters.js";
import { Summaries, Thumbnails } from "./overviews.js";
import { grown, measured } from "./quantities.js";
import { statusOf } from "./stream_status.js";
import { allProblems, showProblems } from "./problems.js";
import { setUpTheme } from "./theme.js";

const SHOWN = 200;
const REFRESH_MS = 3000;
const PAGE = 500; // of the newest streams; older ones are found by a search
const ORDER = ["stream_active", "stream_finalizing", "stream_interrupted"];
const search = byId("search");
const filters = new ListFilters();
const summaries = new Summaries();
const thumbnails = new Thumbnails();
let newest = 0;
let shown = "";

async function refresh() {
  const number = ++newest;
  const words = search.value.trim().split(/\s+/).filter(Boolean);
  const query = [...words.map((word) => `keywords=${encodeURIComponent(word)}`), filters.query].filter(Boolean).join("&");
  try {
    const [entries, problems] = await Promise.all([listed(query ? `${query}&` : ""), problemsOrNone()]);
    for (const entry of entries) entry.shown_status = statusOf(entry.data_id, entry.pipeline_status, problems);
    for (const entry of entries) entry.summary = summaries.get(entry.data_id);
    if (number !== newest) return;
    const shownNow = show(entries, words.length > 0 || filters.isSet);
    // The list is there before the numbers of its streams.
    summaries.load(shownNow).then((isNew) => { if (isNew && number === newest) refresh(); }, () => {});
    const names = new Map(entries.map((entry) => [entry.data_id, entry.raw_name]));
    showProblems(allProblems(problems, (id) => names.get(id)));
    setHidden(byId("notice"), true);
  } catch (error) {
    if (error.status === 401) return;
    setText(byId("notice"), `${error.message} Trying again.`);
    setHidden(byId("notice"), false);
  }
}

/** The problems of the server. Without them the list of streams is shown all the same, with the reason. */
async function problemsOrNone() {
  try {
    return await ask("/dashboard/problems");
  } catch (error) {
    if (error.status === 401) throw error;
    return { server: [`The problems of the server can't be shown: ${error.message}`], streams: {}, silent: [], analysing: [] };
  }
}

async function listed(query) {
  const entries = await ask(`/data_entries/?${query}limit=${PAGE}`);
  if (entries.length < PAGE) return entries;
  const known = new Set(entries.map((entry) => entry.data_id));
  if (/(^|&)status=/.test(query)) return entries;
  const live = await ask(`/data_entries/?${query}status=stream_active&limit=${SHOWN}`);
  return [...entries, ...live.filter((entry) => !known.has(entry.data_id))];
}

function show(entries, searched) {
  const rank = (entry) => (ORDER.indexOf(entry.pipeline_status) + ORDER.length + 1) % (ORDER.length + 1);
  const sorted = entries.map((entry, position) => ({ entry, position })).sort((a, b) => rank(a.entry) - rank(b.entry) || a.position - b.position);
  const first = sorted.slice(0, SHOWN).map(({ entry }) => entry);
  // Redrawn only after a change, so that the list keeps its focus and position.
  const content = JSON.stringify(first);
  if (content !== shown) draw(first);
  shown = content;
  const live = entries.filter((entry) => entry.shown_status === STATUS.stream_active).length;
  const more = entries.length > SHOWN ? `, the first ${SHOWN} shown: search for others` : "";
  const number = entries.length < PAGE ? `${entries.length}` : `${PAGE} or more`;
  setText(byId("count"), `${number} ${searched ? "found" : entries.length === 1 ? "stream" : "streams"}, ${live} live${more}`);
  setHidden(byId("empty"), entries.length > 0);
  const nothing = filters.isSet ? "No stream fits these filters and words." : searched ? "No stream contains these words in its name, sample or tags." : "No streams yet. Point a RHEEDStreamer at this server's address.";
  setText(byId("empty"), nothing);
  return first;
}

function draw(entries) {
  const focused = document.activeElement?.getAttribute?.("href");
  byId("list").replaceChildren(...entries.map(row));
  if (focused?.startsWith(at("/streams/"))) document.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

function row(entry) {
  const [status, tone] = entry.shown_status;
  const meta = entry.file_metadata ?? {};
  const facts = [
    ...(entry.projects ?? []).map((project) => project.name),
    meta.rotations_per_min ? `${meta.rotations_per_min} rpm` : null,
    ...(entry.tags ?? []).map((tag) => tag.name),
  ];
  const { physical_sample_id: sampleId, physical_sample_name: sample } = entry;
  const sampleLink = sample ? el("a", { class: "of-sample", href: at(`/samples/${encodeURIComponent(sampleId)}`), title: "All streams of this sample" }, visible(sample)) : "No sample";
  const others = visible(facts.filter(Boolean).join(" · "));
  return el("li", {}, el("div", { class: "row" },
    thumbnails.of(entry),
    el("a", { class: "name", dir: "auto", href: at(`/streams/${encodeURIComponent(entry.data_id)}`) }, visible(entry.raw_name)),
    el("span", { class: "rate num" }, measured(entry.summary?.rate)),
    el("span", { class: "grown num" }, grown(entry.summary)),
    el("span", { class: `status ${tone}` }, status),
    el("span", { class: "length num" }, duration(entry.growth_length, { tenths: false })),
    el("span", { class: "when" }, momentText(Date.parse(entry.upload_datetime))),
    el("span", { class: "sub", dir: "auto" }, sampleLink, others ? ` · ${others}` : ""),
  ));
}

/** The link to the settings, and with TLS the certificate's fingerprint, for clients that do not trust it by an authority. */
async function showSession() {
  const { tls_fingerprint: sha256, right, person } = await ask("/session");
  setHidden(byId("settings-link"), !(right === "admin" || person));
  setText(byId("certificate"), sha256 ? `This server's TLS certificate, for ATOMSTREAM_TLS_FINGERPRINT of its clients: ${sha256}` : "");
  setHidden(byId("certificate"), !sha256);
}

setUpTheme();
showSession().catch(() => {});
byId("logout").addEventListener("click", logOut);
byId("search-form").addEventListener("submit", (event) => event.preventDefault());
let typed;
search.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(refresh, 150);
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("change", refresh);
filters.load().catch(() => {});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !isTyping(event)) {
    event.preventDefault();
    search.focus();
  }
});
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
