// What the results lack although it is stored, and the analysis of the whole stream once more.
import { ask } from "./api.js";
import { byId, say, setHidden } from "./dom.js";
import { tell } from "./marks.js";

export class Again {
  /** `begun()` is called when another analysis has begun. */
  constructor(dataId, begun) {
    this.path = `/rheed/stream/${dataId}/reanalyse`;
    this.begun = begun;
    this.known = { status: "waiting", reanalysis: false, progress: null, missing: [] };
    for (const id of ["analyse-again", "standing-again"]) byId(id).addEventListener("click", () => this.begin());
  }

  get runs() {
    return this.known.reanalysis;
  }

  /** `standing` has what is new of `status`, `reanalysis`, `progress` and `missing`, as the analysis tells them. */
  show(standing) {
    for (const name of Object.keys(this.known)) if (name in standing) this.known[name] = standing[name];
    const { status, reanalysis, missing } = this.known;
    const over = !reanalysis && (status === "ended" || status === "none");
    const text = this.text();
    setHidden(byId("standing"), text === "");
    say(byId("standing-text"), text);
    setHidden(byId("standing-again"), !(over && missing.length));
    setHidden(byId("again-row"), !over);
  }

  text() {
    const { status, reanalysis, progress, missing } = this.known;
    const late = chunks(missing, "late");
    if (reanalysis) {
      const why = late ? ` with ${late}, which came late` : "";
      const done = progress === null ? "" : ` (${Math.round(100 * progress)} %)`;
      return `The stream is being analysed again${why}${done}. Until that has ended, rate and readings are those of before.`;
    }
    const parts = [];
    if (late) parts.push(status === "ended"
      ? `The results lack ${late}, which came late: to analyse the stream again failed, and the server's log says why.`
      : `Rate and readings lack ${late}, which came late. When the stream has ended it is analysed again, with all its chunks.`);
    const unreadable = chunks(missing, "unreadable");
    if (unreadable) parts.push(`The results lack ${unreadable}, which can't be read; the server's log says why.`);
    return parts.join(" ");
  }

  async begin() {
    try {
      this.show(await ask(this.path, { method: "POST" }));
      this.begun();
    } catch (error) {
      tell(`The stream is not analysed again: ${error.message}`);
    }
  }
}

/** `chunk 3`, `chunks 3-5`; empty where there are none. */
function chunks(missing, why) {
  const found = missing.find((one) => one.why === why);
  return found ? `${found.count === 1 ? "chunk" : "chunks"} ${found.chunks.replaceAll(",", ", ")}` : "";
}
