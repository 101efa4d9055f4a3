// Names of azimuths: of the one that a still sample is seen along, or of each view of a turning one.
import { ask } from "./api.js";
import { byId, el, say } from "./dom.js";
import { fixed, visible } from "./format.js";
import { tell } from "./marks.js";

export class Azimuths {
  /** `changed()` is called when names are known or others. */
  constructor(dataId, changed) {
    this.path = `/rheed/${dataId}/azimuths`;
    this.changed = changed;
    this.views = [];
    this.dialog = byId("azimuth-dialog");
    byId("azimuths").addEventListener("click", () => this.open());
    byId("azimuth-cancel").addEventListener("click", () => this.dialog.close());
    byId("azimuth-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  /** The name of a view by its number, "" where it has none. */
  nameOf(viewId) {
    return this.views.find(({ view_id: id }) => id === String(viewId))?.azimuth_label ?? "";
  }

  /** The name that the whole picture has, null of a turning sample. */
  get ofAll() {
    const [only] = this.views;
    return only?.view_id === "stationary" ? (only.azimuth_label ?? "") : null;
  }

  /** Asks the server, for another page or a program may have named them. */
  async refresh() {
    this.views = await ask(this.path);
    this.changed();
  }

  async open() {
    try {
      await this.refresh();
    } catch (error) {
      tell(`The azimuths are not known: ${error.message}`);
      return;
    }
    byId("azimuth-fields").replaceChildren(...this.views.map(field));
    say(byId("azimuth-problem"), "");
    say(byId("azimuth-what"), this.views.length ? "A name such as [110]. It is stored with the stream, and clients read it." : "No azimuth was found yet.");
    byId("azimuth-save").disabled = !this.views.length;
    this.dialog.showModal();
  }

  /** Sets the names that were changed; the first that the server refuses is told, and the dialog stays. */
  async save() {
    try {
      for (const input of byId("azimuth-fields").querySelectorAll("input")) {
        const label = input.value.trim();
        if (label === this.nameOf(input.name)) continue;
        await ask(`${this.path}/${encodeURIComponent(input.name)}`, { method: "PATCH", body: { label: label || null } });
      }
      await this.refresh();
      this.dialog.close();
    } catch (error) {
      say(byId("azimuth-problem"), error.message);
    }
  }
}

function field({ view_id: viewId, azimuth_label: label, annotation: { angle_deg: angle } }) {
  const id = `azimuth-${viewId}`;
  const title = viewId === "stationary" ? "The sample’s azimuth" : `View ${visible(viewId)} at ${fixed(angle ?? 0, 1)}°`;
  const input = el("input", { id, name: viewId, maxlength: 256, autocomplete: "off", list: "azimuth-ideas", placeholder: "e.g. [110]" });
  input.value = label ?? "";
  return el("div", { class: "field" }, el("label", { for: id }, title), input);
}
