// Azimuth labels: one for a stationary sample, one for each view of a rotating sample.
import { ask } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { fixed, visible } from "./format.js";
import { notify } from "./notifications.js";

export class Azimuths {
  /** `changed()` is called when labels were loaded or changed. */
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

  /** The label of a view by its number; "" if it has none. */
  nameOf(viewId) {
    return this.views.find(({ view_id: id }) => id === String(viewId))?.azimuth_label ?? "";
  }

  /** The label of a stationary sample; null for a rotating one. */
  get ofAll() {
    const [only] = this.views;
    return only?.view_id === "stationary" ? (only.azimuth_label ?? "") : null;
  }

  /** Loads the labels: another page or a program may have changed them. */
  async refresh() {
    this.views = await ask(this.path);
    this.changed();
  }

  async open() {
    try {
      await this.refresh();
    } catch (error) {
      notify(`The azimuths could not be loaded: ${error.message}`);
      return;
    }
    byId("azimuth-fields").replaceChildren(...this.views.map(field));
    setText(byId("azimuth-problem"), "");
    setText(byId("azimuth-what"), this.views.length ? "A label such as [110]. It is stored with the stream and sent to clients." : "No azimuth was found yet.");
    byId("azimuth-save").disabled = !this.views.length;
    this.dialog.showModal();
  }

  /** Saves changed labels; if the server refuses one, its error is shown and the dialog stays open. */
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
      setText(byId("azimuth-problem"), error.message);
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
