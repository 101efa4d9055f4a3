// Marks: M sets one now; Shift+M keeps the time while the text is written.
import { ask } from "/dashboard/static/js/api.js";
import { setUpDialog } from "/dashboard/static/js/dialog.js";
import { byId, el, isTyping, setText } from "/dashboard/static/js/dom.js";
import { visible } from "/dashboard/static/js/format.js";
import { KeyedList } from "/dashboard/static/js/keyed_list.js";
import { notify } from "/dashboard/static/js/notifications.js";

const HELP = "No marks yet: M sets one, Shift+M one with a text.";

export class Marks {
  constructor() {
    this.list = new KeyedList(byId("marks"));
    this.count = 0;
    this.dialog = setUpDialog("mark", () => this.set(byId("mark-label").value.trim() || this.nextName(), this.heldTime));
    byId("mark").addEventListener("click", (event) => (event.shiftKey ? this.open() : this.setNow()));
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "m" || event.repeat || isTyping(event)) return;
      event.preventDefault();
      if (event.shiftKey) this.open();
      else this.setNow();
    });
  }

  nextName() {
    return `Mark ${this.count + 1}`;
  }

  open() {
    this.heldTime = Date.now();
    byId("mark-label").value = "";
    byId("mark-label").placeholder = this.nextName();
    setText(byId("mark-time"), clockTime(this.heldTime));
    this.dialog.open(byId("mark-label"));
  }

  setNow() {
    this.set(this.nextName(), Date.now()).catch((error) => notify(`The mark was not set: ${error.message}`));
  }

  async set(label, time) {
    this.count += 1;
    const made = await ask("/record/marks", { method: "POST", body: { label, time_ms: time } });
    notify(`${made.label} was set at ${clockTime(time)}.`);
  }

  /** Shows the marks of the recording, or those that are kept for one that begins earlier. */
  show(marks, recording) {
    if (recording !== this.recording) this.count = 0;
    this.recording = recording;
    this.count = Math.max(this.count, marks.length);
    if (marks.length) this.list.show(marks.map((mark, k) => [k, JSON.stringify(mark), () => line(mark)]).reverse());
    else this.list.show([["none", String(recording), () => el("li", { class: "none" }, recording ? HELP : `${HELP} Before a recording they are kept for one that begins earlier.`)]]);
  }
}

function line({ label, kind, time_ms: time }) {
  return el("li", {}, el("span", { class: "num" }, clockTime(time)), el("span", { class: "kind" }, kind), el("span", { class: "label", dir: "auto" }, visible(label)));
}

export function clockTime(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}
