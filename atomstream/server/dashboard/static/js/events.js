// Events: marks of users and events found by the analysis, in the lane above the charts and in a list.
import { byId, el } from "./dom.js";
import { brief, duration, visible } from "./format.js";
import { KeyedList } from "./keyed_list.js";
import { mayWrite } from "./rights.js";

const LISTED = 300;
// Texts for the kinds of events of the analysis whose names are not plain words.
const KINDS = {
  exposure: "exposure step",
  dropout: "drop-out",
  inverted: "inverted greys",
  spot: "other spot",
  fractional_order: "fractional order",
  rotation_seen: "rotation seen",
  rotation_refined: "rotation speed",
  growth_stopped: "growth stopped",
  growth_began: "growth began again",
  rate_changed: "rate changed",
};

export class Events {
  constructor(view, chosen) {
    this.view = view;
    this.chosen = chosen;
    this.all = new Map();
    this.sorted = [];
    this.lines = new KeyedList(byId("events"));
    view.addEventListener("change", () => this.drawLane());
    byId("lane").setAttribute("aria-hidden", "true");
    new ResizeObserver(([{ contentRect }]) => {
      this.laneWidth = contentRect.width;
      this.drawLane();
    }).observe(byId("lane"));
  }

  /** Replaces all events, after a reconnection. */
  reset(events) {
    this.all.clear();
    this.add(events);
  }

  add(events) {
    for (const event of events) this.all.set(keyOf(event), event);
    this.sorted = [...this.all.values()].sort((a, b) => (a.time_s ?? Infinity) - (b.time_s ?? Infinity));
    this.drawList();
    this.drawLane();
  }

  /** One event as the feed reports it: new, corrected or deleted. */
  apply({ event, deleted }) {
    if ((this.all.get(keyOf(event))?.version ?? 0) > event.version) return;
    if (deleted) this.all.delete(keyOf(event));
    this.add(deleted ? [] : [event]);
  }

  get users() {
    return this.sorted.filter((event) => event.by === "user" && event.time_s !== null);
  }

  /** Where frames are missing, by time. */
  get gaps() {
    return this.sorted.filter((event) => event.by !== "user" && event.kind === "gap" && event.value !== null && event.time_s !== null);
  }

  drawList() {
    const shown = this.sorted.slice(-LISTED).reverse();
    const none = ["none", "", () => el("li", { class: "none" }, mayWrite() ? "None yet. Press M to set a mark at this moment, Shift and M to name it first." : "None yet.")];
    this.lines.show(shown.length ? shown.map((event) => [keyOf(event), JSON.stringify(event), () => this.line(event)]) : [none]);
  }

  line(event) {
    const time = event.time_s === null ? el("span", { class: "num" }, "–") : el("button", { type: "button", class: "num", title: "Show this moment", onclick: () => this.chosen(event) }, duration(event.time_s));
    const edit = event.by === "user" ? el("button", { type: "button", "data-needs": "write", "data-edit": event.id, title: "Change, move or delete this mark", "aria-label": `Change the mark ${labelText(event)}` }, "Edit") : null;
    return el("li", { class: event.by }, time, el("span", { class: "kind" }, kindText(event.kind)), el("span", { class: "label", dir: "auto" }, labelText(event)), edit);
  }

  /** The lane shows labels where they fit and strokes elsewhere. Screen readers skip it, because it repeats the list. */
  drawLane() {
    const lane = byId("lane");
    // Kept, because reading it from the page would compute the layout at each move of the range.
    const width = this.laneWidth ?? 0;
    const { from, to } = this.view;
    let free = 0;
    const shown = this.sorted.filter(({ time_s: at }) => at !== null && at >= from && at <= to).slice(-LISTED);
    if (!shown.length && !lane.firstChild) return;
    const positions = shown.map((event) => ((event.time_s - from) / (to - from)) * width);
    lane.replaceChildren(...shown.map((event, k) => {
      const bare = positions[k] < free || (positions[k + 1] ?? width) - positions[k] < 34;
      if (!bare) free = Math.min(positions[k + 1] ?? width, positions[k] + 224);
      const mark = el("span", { class: `${event.by}${bare ? " bare" : ""}`, title: `${duration(event.time_s)} ${kindText(event.kind)} ${labelText(event)}` }, bare ? "" : labelText(event) || kindText(event.kind));
      mark.style.left = `${positions[k]}px`;
      if (!bare) mark.style.width = `${Math.max(0, free - positions[k] - 4)}px`;
      return mark;
    }));
  }
}

function keyOf(event) {
  return event.id ?? `${event.kind} ${event.time_s} ${event.label}`;
}

export function kindText(kind) {
  return Object.hasOwn(KINDS, kind) ? KINDS[kind] : visible(kind);
}

function labelText(event) {
  if (event.label && event.by === "user" && event.kind !== "rotation" && (event.value ?? null) !== null) return visible(`${event.label}: ${brief(event.value)} ${event.unit ?? ""}`.trimEnd());
  if (event.label) return visible(event.label);
  return event.value === null || event.value === undefined ? "" : brief(event.value);
}
