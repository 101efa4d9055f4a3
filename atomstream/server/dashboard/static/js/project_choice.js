// A choice of projects: all of them, or some.
import { el } from "./dom.js";
import { visible } from "./format.js";

export class ProjectChoice {
  constructor(fieldset) {
    this.fieldset = fieldset;
    this.all = el("input", { type: "checkbox" });
    this.all.addEventListener("change", () => this.enable());
    this.boxes = [];
    this.list = el("div", { class: "choices" });
    fieldset.append(this.list);
  }

  /** Shows `projects`, with those of the ids `chosen` (null: all) ticked. */
  show(projects, chosen) {
    this.all.checked = chosen === null;
    this.boxes = projects.map(({ id }) => el("input", { type: "checkbox", value: id, checked: (chosen ?? []).includes(id) }));
    this.list.replaceChildren(
      el("label", {}, this.all, "all projects, and streams without one"),
      ...projects.map(({ name }, number) => el("label", {}, this.boxes[number], visible(name))));
    this.enable();
  }

  enable() {
    for (const box of this.boxes) box.disabled = this.all.checked;
  }

  /** The ids of the projects; null for all. */
  get value() {
    return this.all.checked ? null : this.boxes.filter((box) => box.checked).map((box) => box.value);
  }
}
