// Marks of the user: M sets one at the current time; Shift+M keeps the time while a name is entered. Marks are changed,
// moved and deleted in the same dialog.
import { ask, RequestError } from "./api.js";
import { setUpDialog } from "./dialog.js";
import { byId, el, isTyping, setHidden, setText } from "./dom.js";
import { clock } from "./format.js";
import { mayWrite } from "./rights.js";
import { notify } from "./notifications.js";

const GONE = 410;
const CONFLICT = 409;

export class Annotations {
  /**
   * `now()`: server time in UTC ms; `elapsed(ms)`: time as text; `count()`: number of marks; `find(id)`: the mark with
   * this id; `changed({event, deleted})`: callback.
   */
  constructor(dataId, { now, elapsed, count, find, changed }) {
    this.path = `/rheed/stream/${dataId}/events`;
    Object.assign(this, { now, elapsed, count, find, changed });
    this.edited = null;
    this.dialog = setUpDialog("mark", () => this.submit());
    byId("mark").addEventListener("click", (event) => (event.shiftKey ? this.openDialog() : this.set()));
    byId("mark-delete").addEventListener("click", () => this.remove());
    byId("events").addEventListener("click", ({ target }) => {
      const mark = this.find(target.closest("[data-edit]")?.dataset.edit);
      if (mark) this.edit(mark);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "m" || event.repeat || isTyping(event) || !mayWrite()) return;
      event.preventDefault();
      if (event.shiftKey) this.openDialog();
      else this.set();
    });
  }

  nextName() {
    return `Mark ${this.count() + 1}`;
  }

  /** A new mark at this moment. */
  openDialog() {
    this.edited = null;
    this.heldTime = this.now();
    byId("mark-label").placeholder = this.nextName();
    this.fill({ label: "", kind: "", value: null, unit: "" });
    this.name(`Mark at ${this.elapsed(this.heldTime)}`, "Set mark");
    this.dialog.open(byId("mark-label"));
  }

  /** A mark that was set before. */
  edit(mark) {
    this.edited = mark;
    this.heldTime = mark.time_ms_utc;
    byId("mark-label").placeholder = "";
    this.fill(mark);
    byId("mark-at").value = this.shownAt = mark.time_s === null ? "" : clock(mark.time_s, 2);
    this.name("Change the mark", "Save");
    this.dialog.open(byId("mark-label"));
  }

  fill({ label, kind, value, unit }) {
    const kinds = byId("mark-kind");
    kinds.querySelector("[data-other]")?.remove();
    if (![...kinds.options].some((option) => option.value === kind)) kinds.append(el("option", { value: kind, "data-other": true }, kind));
    kinds.value = kind;
    byId("mark-label").value = label;
    byId("mark-value").value = value ?? "";
    byId("mark-unit").value = unit ?? "";
  }

  name(title, save) {
    setText(byId("mark-title"), title);
    setText(byId("mark-save"), save);
    setHidden(byId("mark-delete"), this.edited === null);
    setHidden(byId("mark-at-field"), this.edited === null || this.edited.time_s === null);
  }

  /** What the dialog has; throws a sentence for what can't be read. */
  wanted() {
    const text = byId("mark-value").value.trim().replace(",", ".").replace("\u2212", "-");
    const value = text === "" ? null : Number(text);
    if (value !== null && !Number.isFinite(value)) throw new Error("The value is not a number.");
    return { label: byId("mark-label").value.trim(), kind: byId("mark-kind").value || null, value, unit: value === null ? "" : byId("mark-unit").value.trim() };
  }

  async submit() {
    const wanted = this.wanted();
    if (this.edited === null) {
      this.set(wanted.label || this.nextName(), wanted, this.heldTime);
      return;
    }
    const at = byId("mark-at").value.trim();
    if (at !== this.shownAt) wanted.time_ms_utc = this.edited.time_ms_utc + 1000 * (secondsOf(at) - this.edited.time_s);
    const id = this.edited.id;
    await this.change({ method: "PATCH", body: { version: this.edited.version, ...wanted } });
    return () => document.querySelector(`[data-edit="${CSS.escape(id)}"]`)?.focus();
  }

  async remove() {
    try {
      await this.change({ method: "DELETE" }, `?version=${this.edited.version}`);
      byId("mark-dialog").close();
      byId("mark").focus();
      notify(`The mark ${this.edited.label} was deleted. The log of the stream keeps what it was.`);
    } catch (error) {
      setText(byId("mark-problem"), error.message);
    }
  }

  /** Sends a change. What the user has entered stays in the dialog if somebody else was faster. */
  async change(request, query = "") {
    try {
      this.changed(await ask(`${this.path}/${this.edited.id}${query}`, request));
    } catch (error) {
      if (error.status === CONFLICT) throw await this.conflict();
      if (error.status !== GONE) throw error;
      this.edited = null;
      this.name("Set the mark again", "Set mark");
      throw new Error("Somebody else has deleted this mark meanwhile. “Set mark” sets it again, as you have it here.");
    }
  }

  async conflict() {
    const { event, deleted } = await ask(`${this.path}/${this.edited.id}`);
    this.changed({ event, deleted });
    this.edited = event;
    const value = event.value === null ? "" : `, ${event.value} ${event.unit}`.trimEnd();
    return new Error(`Somebody else has changed this mark meanwhile: it is now “${event.label}”, ${event.kind}${value}, at ${this.elapsed(event.time_ms_utc)}. What you have here replaces that when you save again.`);
  }

  /** Sets one mark. Its id is created here, so that a repeated request does not create a second mark. */
  async set(label = this.nextName(), { kind = "note", value = null, unit = "" } = {}, time = this.now()) {
    const body = { id: newId(), label, kind, time_ms_utc: time, value, unit };
    for (let attempt = 0; attempt < 5; attempt++) {
      try {
        this.changed({ event: await ask(this.path, { method: "POST", body }) });
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

/** Seconds of `h:mm:ss.s`, `m:ss` or `s`. */
function secondsOf(text) {
  const bare = text.replace("\u2212", "-").replace(",", ".");
  const parts = bare.replace(/^-/, "").split(":").map((part) => (part.trim() === "" ? NaN : Number(part)));
  const seconds = parts.reduce((sum, part) => 60 * sum + part, 0);
  if (parts.length > 3 || !Number.isFinite(seconds)) throw new Error("The time is not one such as 1:02:03.5.");
  return bare.startsWith("-") ? -seconds : seconds;
}

/** A UUID; `crypto.randomUUID` does not exist on pages loaded over plain HTTP from another machine. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
