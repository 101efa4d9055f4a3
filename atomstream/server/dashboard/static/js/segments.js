// The table of growth segments with their rate and count.
import { byId, el } from "./dom.js";
import { brief, duration, unitText, visible, withSigma } from "./format.js";
import { KeyedList } from "./keyed_list.js";

export class Segments {
  constructor(chosen) {
    this.chosen = chosen;
    this.all = new Map();
    this.rows = new KeyedList(byId("segments"));
    this.add([]);
  }

  reset(segments) {
    this.all.clear();
    this.add(segments);
  }

  add(segments) {
    for (const segment of segments) this.all.set(segment.number, segment);
    const sorted = [...this.all.values()].sort((a, b) => b.number - a.number);
    const none = ["none", "", () => el("tr", {}, el("td", { colspan: "6", class: "muted" }, "None yet."))];
    this.rows.show(sorted.length ? sorted.map((segment) => [segment.number, JSON.stringify(segment), () => this.row(segment)]) : [none]);
  }

  row(segment) {
    const from = el("button", { type: "button", class: "num", title: "Show this segment", onclick: () => this.chosen(segment) }, duration(segment.start_s));
    return el("tr", {},
      el("td", { class: "num" }, from),
      el("td", { class: "num" }, duration(segment.end_s)),
      el("td", { dir: "auto" }, visible(segment.label)),
      cell(segment.rate),
      cell(segment.counted),
      cell(segment.recovery),
    );
  }
}

function cell(value) {
  if (!value || value.value === null) return el("td", {}, el("span", { class: "why" }, value?.why ?? "–"));
  const text = withSigma(value.value, value.sigma);
  return el("td", { class: "num" }, text.sigma ? `${text.value} ± ${text.sigma} ${unitText(value.unit)}` : `${brief(value.value)} ${unitText(value.unit)}`);
}
