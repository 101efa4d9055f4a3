// Stored chunks that are missing in the results, and the repeated analysis of the whole stream.
import { ask } from "./api.js";
import { byId, setText, setHidden } from "./dom.js";
import { notify } from "./notifications.js";

export class Reanalysis {
  /** `begun()` is called when a reanalysis has started. */
  constructor(dataId, begun) {
    this.path = `/rheed/stream/${dataId}/reanalyse`;
    this.begun = begun;
    this.state = { status: "waiting", reanalysis: false, progress: null, missing: [] };
    for (const id of ["reanalyse", "missing-reanalyse"]) byId(id).addEventListener("click", () => this.begin());
  }

  get isRunning() {
    return this.state.reanalysis;
  }

  /** `changes` holds new values of `status`, `reanalysis`, `progress` and `missing`, as the server sends them. */
  show(changes) {
    for (const name of Object.keys(this.state)) if (name in changes) this.state[name] = changes[name];
    const { status, reanalysis, missing } = this.state;
    const over = !reanalysis && (status === "ended" || status === "none");
    const text = this.text();
    setHidden(byId("missing"), text === "");
    setText(byId("missing-text"), text);
    setHidden(byId("missing-reanalyse"), !(over && missing.length));
    setHidden(byId("reanalyse-row"), !over);
  }

  text() {
    const { status, reanalysis, progress, missing } = this.state;
    const late = chunks(missing, "late");
    if (reanalysis) {
      const why = late ? ` with ${late}, which arrived late` : "";
      const done = progress === null ? "" : ` (${Math.round(100 * progress)} %)`;
      return `The stream is being analysed again${why}${done}. Until it has finished, the page shows the earlier results.`;
    }
    const parts = [];
    if (late) parts.push(status === "ended"
      ? `The results do not include ${late}, which arrived late. The repeated analysis failed; the server's log has the reason.`
      : `The results do not include ${late}, which arrived late. All chunks are analysed again when the stream has ended.`);
    const unreadable = chunks(missing, "unreadable");
    if (unreadable) parts.push(`The results do not include ${unreadable}, which cannot be read; the server's log has the reason.`);
    const crashed = chunks(missing, "crashed");
    if (crashed) parts.push(`The results do not include ${crashed}, whose analysis failed; the server's log has the reason.`);
    const waiting = chunks(missing, "no_analysis");
    if (waiting) parts.push(`The results do not include ${waiting}: the analysis cannot be started; the server's log has the reason. The frames are stored.`);
    return parts.join(" ");
  }

  async begin() {
    try {
      this.show(await ask(this.path, { method: "POST" }));
      this.begun();
    } catch (error) {
      notify(`The analysis was not repeated: ${error.message}`);
    }
  }
}

/** `chunk 3` or `chunks 3-5`; empty if there are none. */
function chunks(missing, why) {
  const found = missing.find((one) => one.why === why);
  return found ? `${found.count === 1 ? "chunk" : "chunks"} ${found.chunks.replaceAll(",", ", ")}` : "";
}
