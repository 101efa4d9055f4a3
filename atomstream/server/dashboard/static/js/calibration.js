// The calibration dialog: values that convert pixels to Ångström and oscillations to nanometres.
import { ask } from "./api.js";
import { byId, setText } from "./dom.js";
import { brief, fixed, unitText, visible } from "./format.js";
import { notify } from "./notifications.js";

const GEOMETRY = ["beam_energy", "screen_sample_distance", "px_per_mm"];
const TITLES = { beam_energy: "beam energy", screen_sample_distance: "distance", px_per_mm: "scale" };

export class Calibration {
  /** `analysis()` returns the stream's analysis, null before it was loaded; `begun()`: a reanalysis has started. */
  constructor(dataId, analysis, begun) {
    this.path = `/rheed/stream/${dataId}/calibration`;
    this.analysis = analysis;
    this.begun = begun;
    this.form = byId("calibrate-form");
    this.dialog = byId("calibrate-dialog");
    byId("calibrate").addEventListener("click", () => this.open());
    byId("calibrate-cancel").addEventListener("click", () => this.dialog.close());
    byId("cal-present").addEventListener("click", () => this.takePresent());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    this.form.addEventListener("input", (event) => {
      if (event.target.getAttribute("aria-invalid") === "true") this.check(event.target);
      this.showGives();
    });
  }

  get numbers() {
    return [...this.form.querySelectorAll("input[data-low]")];
  }

  /** Shows in one line which units are calibrated. */
  show(calibration) {
    const parts = describe(calibration);
    setText(byId("units-note"), parts.length ? `Calibrated: ${parts.join(" · ")}` : "Relative units: not calibrated for nm/s, Å and strain.");
  }

  /** Fills the dialog with the values of the server, which another page may have changed. */
  async open() {
    let known = this.analysis()?.calibration ?? {};
    try {
      known = await ask(this.path);
      this.show(known);
    } catch (error) {
      notify(`The calibration could not be loaded: ${error.message}`);
    }
    for (const input of this.numbers) {
      input.value = known[input.name] ?? "";
      complain(input, "");
    }
    this.form.elements.layer_unit.value = known.layer_unit ?? "";
    setText(byId("calibrate-problem"), "");
    const ended = this.analysis()?.status === "ended";
    setText(byId("calibrate-what"), ended ? "The whole stream is analysed again with these values. Empty fields leave relative units." : "Applies from the next result on. Empty fields leave relative units.");
    const spacing = this.present();
    byId("cal-present").disabled = spacing === null;
    setText(byId("cal-present"), spacing === null ? "No spacing seen yet" : `Use the current ${fixed(spacing, 3)} px`);
    this.showGives();
    this.dialog.showModal();
  }

  present() {
    return this.analysis()?.values.lattice_spacing?.value ?? null;
  }

  takePresent() {
    const input = this.form.elements.reference_spacing_px;
    input.value = this.present().toFixed(3);
    complain(input, "");
    this.showGives();
  }

  /** The number of a field: null if empty, undefined if invalid (an error is shown at the field). */
  check(input) {
    const text = input.value.trim().replace(",", ".");
    const [low, high] = [Number(input.dataset.low), Number(input.dataset.high)];
    const value = text === "" ? null : Number(text);
    const wrong = value !== null && !(value >= low && value <= high);
    const unit = input.labels[0].querySelector("span")?.textContent ?? "";
    complain(input, wrong ? `A number from ${low} to ${high} ${unit}`.trim() + ", or nothing." : "");
    return wrong ? undefined : value;
  }

  /** Shows which units the entered values allow, before they are saved. */
  showGives() {
    const filled = (name) => this.form.elements[name].value.trim() !== "";
    const missing = GEOMETRY.filter((name) => !filled(name));
    const gives = [filled("layer_thickness_nm") && "growth rate in nm/s", missing.length === 0 && "lattice parameter in Å", filled("reference_spacing_px") && "strain"].filter(Boolean);
    const partly = missing.length > 0 && missing.length < GEOMETRY.length ? ` For Å the ${missing.map((name) => TITLES[name]).join(" and the ")} is missing.` : "";
    setText(byId("calibrate-gives"), (gives.length ? `Gives ${gives.join(", ")}.` : "Gives relative units only.") + partly);
  }

  async save() {
    const body = {};
    let first = null;
    for (const input of this.numbers) {
      const value = this.check(input);
      if (value === undefined) first ??= input;
      else if (value !== null) body[input.name] = value;
    }
    if (first !== null) {
      first.focus();
      return;
    }
    const unit = this.form.elements.layer_unit.value.trim();
    if (unit) body.layer_unit = unit;
    try {
      const kept = await ask(this.path, { method: "PUT", body });
      if (this.analysis()) this.analysis().calibration = kept;
      this.show(kept);
      this.dialog.close();
      const ended = this.analysis()?.status === "ended";
      notify(ended ? "Calibration saved. The stream is analysed again with it." : "Calibration saved. It applies from the next result on.");
      if (ended) this.begun();
    } catch (error) {
      setText(byId("calibrate-problem"), error.message);
    }
  }
}

function complain(input, text) {
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  setText(byId(`${input.id}-error`), text);
}

function describe(known) {
  const parts = [];
  if (known.layer_thickness_nm) parts.push(`${brief(known.layer_thickness_nm)} nm a ${visible(unitText(known.layer_unit ?? "monolayer"))}`);
  if (GEOMETRY.every((name) => known[name])) parts.push(`${brief(known.beam_energy)} keV, ${brief(known.screen_sample_distance)} mm, ${brief(known.px_per_mm)} px/mm`);
  if (known.reference_spacing_px) parts.push(`strain against ${brief(known.reference_spacing_px, 5)} px`);
  return parts;
}
