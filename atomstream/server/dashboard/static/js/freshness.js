// How fresh the numbers on the page are: the status in the header, their age in words, and whether they are stale.
import { ageWords, duration, momentText, STATUS } from "./format.js";

// Seconds without a new chunk after which the page offers to end the stream.
const ABANDONED_S = 60;
const OPEN = ["stream_active", "stream_interrupted", "stream_error"];

/**
 * Facts: `status` of the stream; `link` false without connection; `chunkS` length of a chunk in s; `silentS` time since
 * the newest chunk was stored; `ageS` age of the newest frame with results; `analysis` as the server sends it (or null).
 *
 * Returns `{ label, tone, text, stale, abandoned }`: the status with its tone, a sentence about the age of the numbers,
 * true if they are older than the next result should be, and the sentence about an abandoned stream ("" for others).
 */
export function freshness({ status, link, chunkS, silentS, ageS, analysis }) {
  const [name, tone] = STATUS[status] ?? [status ?? "", ""];
  const running = ["waiting", "running"].includes(analysis?.status) && analysis.frames_stored > 0;
  const behindS = running && analysis.newest_stored_s !== null ? analysis.newest_stored_s - (analysis.newest_s ?? 0) : 0;
  const limit = Math.max(2.5, chunkS + 1);
  const numbers = ageS === null ? "No results yet." : `These numbers are ${ageWords(ageS)} old.`;
  const made = { label: name, tone, stale: false, abandoned: "" };
  if (!OPEN.includes(status)) {
    if (running && analysis.reanalysis) return { ...made, label: "Analysing again", tone: "live", text: "Until it has finished, the page shows the earlier results." };
    if (running) return { ...made, label: `Analysing, ${share(analysis)}`, tone: "live", stale: behindS > limit, text: progress(analysis) };
    if (status === "success" && analysis?.frames_stored === 0) return { ...made, text: "No frames were received." };
    const when = analysis?.newest_unix_ms ? `Analysed ${momentText(analysis.newest_unix_ms)}` : "";
    return { ...made, text: link ? when : `No connection to the server. ${when}` };
  }
  if (silentS !== null && (silentS > ABANDONED_S || status !== "stream_active")) made.abandoned = `No new frames for ${ageWords(silentS)}. If the client sends no more, end the stream; chunks that arrive later are still stored.`;
  if (!link) return { ...made, label: "No connection", tone: "bad", stale: true, text: `No connection to the server. ${numbers}`, abandoned: "" };
  if (status !== "stream_active") return { ...made, stale: true, text: numbers };
  // Results that are late by less than that are old because the next chunk is overdue.
  const overdue = silentS !== null && (silentS > limit || (ageS > limit && behindS <= limit && ageS - silentS <= limit));
  if (overdue) return { ...made, label: "No new frames", tone: "warn", stale: true, text: `No new frames for ${ageWords(silentS)}. ${behindS > limit ? progress(analysis) : numbers}` };
  if (behindS > limit) return { ...made, label: `Analysis behind, ${share(analysis)}`, tone: "warn", stale: true, text: progress(analysis) };
  if (ageS !== null && ageS > limit) return { ...made, label: "Delayed", tone: "warn", stale: true, text: `Frames arrive late. ${numbers}` };
  if (!analysis?.frames_stored) return { ...made, label: "Waiting for frames", tone: "", text: "" };
  return { ...made, text: ageS === null ? "" : `Newest result ${ageS.toFixed(1)} s ago` };
}

function share({ frames_analysed: done, frames_stored: all }) {
  return `${Math.floor((100 * Math.min(done, all)) / Math.max(1, all))} %`;
}

function progress(analysis) {
  const at = analysis.newest_s === null ? "" : ` These numbers are of ${duration(analysis.newest_s)}; the newest frame is of ${duration(analysis.newest_stored_s)}.`;
  return `${share(analysis)} of the stored frames are analysed.${at}`;
}
