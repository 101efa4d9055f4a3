// Marks: M sets one at this very moment; with Shift the moment is held while it gets its name.
import { ask, RequestError } from "./api.js";
import { byId, isTyping, say, setHidden } from "./dom.js";

export class Marks {
  /** `now()` gives the server's time in UTC ms, `elapsed(ms)` text for people, `count()` how many marks there are. */
  constructor(dataId, { now, elapsed, count, added }) {
    this.path = `/rheed/stream/${dataId}/events`;
    Object.assign(this, { now, elapsed, count, added });
    byId("mark").addEventListener("click", (event) => (event.shiftKey ? this.openDialog() : this.set()));
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "m" || event.repeat || isTyping(event)) return;
      event.preventDefault();
      if (event.shiftKey) this.openDialog();
      else this.set();
    });
    byId("mark-form").addEventListener("submit", (event) => {
      if (event.submitter?.value === "cancel") return;
      const label = byId("mark-label").value.trim();
      this.set(label || this.nextName(), byId("mark-kind").value, this.held);
    });
  }

  nextName() {
    return `Mark ${this.count() + 1}`;
  }

  openDialog() {
    this.held = this.now();
    byId("mark-label").value = "";
    byId("mark-label").placeholder = this.nextName();
    say(byId("mark-time"), this.elapsed(this.held));
    byId("mark-dialog").showModal();
  }

  /** One mark. Its id is made here, so that a repeat after a broken answer does not make a second one. */
  async set(label = this.nextName(), kind = "note", time = this.now()) {
    const body = { id: newId(), label, kind, time_ms_utc: time, value: null };
    for (let attempt = 0; attempt < 5; attempt++) {
      try {
        this.added(await ask(this.path, { method: "POST", body }));
        tell(`${label} was set at ${this.elapsed(time)}.`);
        return;
      } catch (error) {
        if (!(error instanceof RequestError) || (error.status > 0 && error.status < 500)) {
          tell(`The mark was not set: ${error.message}`);
          return;
        }
      }
      tell(`${label} (${this.elapsed(time)}) waits for the server.`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** attempt));
    }
    tell(`${label} was not set: the server does not answer. Note the time: ${new Date(time).toLocaleTimeString()}.`);
  }
}

let hiding;
export function tell(text) {
  const notice = byId("notice");
  say(notice, text);
  setHidden(notice, false);
  clearTimeout(hiding);
  hiding = setTimeout(() => setHidden(notice, true), 6000);
}

/** A UUID; `crypto.randomUUID` is missing on pages that came over plain http from another machine. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
