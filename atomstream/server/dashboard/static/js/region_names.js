// The name of a region: changed in a dialog, by double click or F2 on the region.
import { byId, setText } from "./dom.js";

const LONGEST = 50;

export class RegionNames {
  constructor(regions) {
    this.regions = regions;
    this.dialog = byId("region-dialog");
    byId("overlay").addEventListener("dblclick", (event) => this.open(event.target.closest("g")?.dataset.name));
    byId("overlay").addEventListener("keydown", (event) => {
      if (event.key !== "F2") return;
      event.preventDefault();
      this.open(event.target.closest("g")?.dataset.name);
    });
    byId("region-cancel").addEventListener("click", () => this.dialog.close());
    byId("region-remove").addEventListener("click", () => {
      this.dialog.close();
      this.regions.remove(this.name);
    });
    byId("region-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  /** Only regions that the user has drawn have a name of the user; the analysis names its own. */
  open(name) {
    if (!name || name === "specular" || !this.regions.isOwn(name)) return;
    this.name = name;
    byId("region-name").value = name;
    setText(byId("region-problem"), "");
    this.dialog.showModal();
    byId("region-name").select();
  }

  save() {
    const wanted = byId("region-name").value.trim();
    const problem = this.problem(wanted);
    setText(byId("region-problem"), problem);
    if (problem) return;
    this.dialog.close();
    this.regions.rename(this.name, wanted);
  }

  problem(wanted) {
    if (!wanted || wanted.length > LONGEST) return `A name has 1 to ${LONGEST} characters.`;
    const same = (name) => name !== this.name && columnOf(name) === columnOf(wanted);
    return this.regions.names.some(same) ? "Another region has this name (upper and lower case, blanks and signs make no difference)." : "";
  }
}

/** As `column_name` of atomstream/results.py: two names with the same one share an array on the server. */
export function columnOf(name) {
  return name.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 57) || "box";
}
