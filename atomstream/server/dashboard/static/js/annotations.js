// Marks of the user: M sets one at the current time; Shift+M keeps the time while a name is entered.
import { ask, RequestError } from "./api.js";
import { byId, isTyping, setText } from "./dom.js";
import { mayWrite } from "./rights.js";
import { notify } from "./notifications.js";

export class Annotations {
  /** `now()`: server time in UTC ms; `elapsed(ms)`: time as text; `count()`: number of marks; `added(event)`: callback. */
  constructor(dataId, { now, elapsed, count, added }) {
    this.path = `/rheed/stream/${dataId}/events`;
    Object.assign(this, { now, elapsed, count, added });
    byId("mark").addEventListener("click", (event) => (event.shiftKey ? this.openDialog() : this.set()));
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "m" || event.repeat || isTyping(event) || !mayWrite()) return;
      event.preventDefault();
      if (event.shiftKey) this.openDialog();
      else this.set();
    });
    byId("mark-form").addEventListener("submit", (event) => {
      if (event.submitter?.value === "cancel") return;
      const label = byId("mark-label").value.trim();
      this.set(label || this.nextName(), byId("mark-kind").value, this.heldTime);
    });
  }

  nextName() {
    return `Mark ${this.count() + 1}`;
  }

  openDialog() {
    this.heldTime = this.now();
    byId("mark-label").value = "";
    byId("mark-label").placeholder = this.nextName();
    setText(byId("mark-time"), this.elapsed(this.heldTime));
    byId("mark-dialog").showModal();
  }

  /** Sets one mark. Its id is created here, so that a repeated request does not create a second mark. */
  async set(label = this.nextName(), kind = "note", time = this.now()) {
    const body = { id: newId(), label, kind, time_ms_utc: time, value: null };
    for (let attempt = 0; attempt < 5; attempt++) {
      try {
        this.added(await ask(this.path, { method: "POST", body }));
        notify(`${label} was set at ${this.elapsed(time)}.`);
        return;
      } catch (error) {
        if (!(error instanceof RequestError) || (error.status > 0 && error.status < 500)) {
          notify(`The mark was not set: ${error.message}`);
          return;
        }
      }
      notify(`${label} (${this.elapsed(time)}) will be set as soon as the server answers.`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** attempt));
    }
    notify(`${label} was not set: the server does not answer. Note the time: ${new Date(time).toLocaleTimeString()}.`);
  }
}

/** A UUID; `crypto.randomUUID` does not exist on pages loaded over plain HTTP from another machine. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
