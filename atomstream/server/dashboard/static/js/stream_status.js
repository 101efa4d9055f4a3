// The status of a stream in a list.
import { STATUS } from "./format.js";

/**
 * [text, tone]: a live stream without new frames is not live, and an analysis that runs is not complete. `problems` is
 * the answer of `/dashboard/problems`, null if there is none.
 */
export function statusOf(id, status, problems) {
  if (status === "stream_active" && problems?.silent.includes(id)) return ["No new frames", "warn"];
  if (status === "success" && problems?.analysing.includes(id)) return ["Analysing", "live"];
  return STATUS[status] ?? [status, ""];
}
