// The growth rate in digits for across the room, and the other readings beside it.
import { byId, el, say } from "./dom.js";
import { ageText, brief, fixed, unitText, withSigma } from "./format.js";

const SPOKEN_EACH_MS = 10000;
const OLD_S = 6;
const MAX_VIEWS = 6;

/** [name of the value, title, { factor, unit, from }]: shown in this order where they make sense. */
const TILES = [
  ["oscillation_period", "Oscillation period", {}],
  ["layers_grown", "Layers in this segment", {}],
  ["lattice_spacing", "Streak spacing", {}],
  ["relative_spacing_change", "Spacing change", { factor: 100, unit: "%" }],
  ["referenced_strain", "Strain", { factor: 100, unit: "%", calibrated: true }],
  ["lattice_parameter", "Lattice parameter", { calibrated: true }],
  ["specular_fwhm_1", "Specular width", {}],
  ["first_order_fwhm_1", "First-order width", {}],
  ["coherence_length", "Coherence length", { calibrated: true }],
  ["spottiness", "Surface", { words: surfaceWords }],
  ["half_order_ratio", "Half order / first", {}],
  ["damping_layers", "Damping", {}],
  ["rotation_rpm", "Rotation", { turning: true }],
  ["saturated_fraction", "Saturated", { factor: 100, unit: "%", warnOver: 0.002 }],
];

export class Readings {
  constructor() {
    this.tiles = new Map();
    this.spokenAt = -Infinity;
    const first = this.tile("counted", "Oscillations since the start");
    first.box.classList.add("first");
    for (const [name, title] of TILES) this.tile(name, title);
  }

  tile(name, title) {
    const parts = { title: el("dt", {}, title), value: el("span", { class: "value" }), sigma: el("span", { class: "sigma" }), unit: el("span", { class: "unit" }), under: el("span", { class: "under" }) };
    parts.box = el("div", { class: "tile", "data-name": name }, parts.title, el("dd", { class: "num" }, parts.value, parts.sigma, parts.unit, parts.under));
    byId("tiles").append(parts.box);
    this.tiles.set(name, parts);
    return parts;
  }

  /** `nameOf(id)` gives the name of a view's azimuth, "" where it has none. */
  show(values, { turning, views, nameOf }) {
    this.showRate(values.growth_rate_ml_s, values.growth_rate_nm_s, values.oscillation_period);
    // Strain is the same number against the user's reference: once is enough.
    const strained = values.referenced_strain?.value ?? null;
    const shown = strained === null ? values : { ...values, relative_spacing_change: undefined };
    for (const [name, , how] of TILES) this.showTile(name, shown[name], how, turning);
    const first = [...views].sort((a, b) => a.view_id - b.view_id).slice(0, MAX_VIEWS);
    first.forEach((view) => this.showView(view, nameOf(view.view_id)));
    if (first.length) this.hideOtherViews(new Set(first.map(({ view_id: id }) => `view ${id}`)));
  }

  /** What is no longer among the views would stand there as if it were of this turn. */
  hideOtherViews(shown) {
    for (const [name, { box }] of this.tiles) if (name.startsWith("view ")) box.hidden = !shown.has(name);
  }

  /** Of a turning sample what belongs to a view stands with the view, not as a dozen times "undetermined". */
  showView({ view_id: id, angle_deg: angle, spacing_px: spacing, turns }, azimuth) {
    const name = `view ${id}`;
    const parts = this.tiles.get(name) ?? this.tile(name, "");
    say(parts.title, `Spacing, ${azimuth || `view ${id}`} at ${fixed(angle, 1)}°`);
    const text = spacing.value === null ? null : withSigma(spacing.value, spacing.sigma);
    this.fill(parts, text, unitText(spacing.unit), spacing.value === null ? spacing.why : `seen in ${turns} turns`);
  }

  /** Of a turning sample without views (yet): why that is. */
  showNoViews(why) {
    if (!why && !this.tiles.has("views")) return;
    const parts = this.tiles.get("views") ?? this.tile("views", "Views of the turning sample");
    parts.box.classList.add("wide");
    parts.box.hidden = !why;
    this.fill(parts, null, "", why);
    say(parts.value, "none");
  }

  /** "undetermined" is a result too: it is told with its reason, in the place of the number. */
  showRate(rate, thickness, period) {
    const none = !rate || rate.value === null;
    byId("rate").classList.toggle("none", none);
    const text = none ? { value: "undetermined", sigma: "" } : withSigma(rate.value, rate.sigma, true);
    say(byId("rate-value"), text.value);
    say(byId("rate-sigma"), text.sigma ? `± ${text.sigma}` : "");
    say(byId("rate-unit"), none ? "" : unitText(rate.unit));
    say(byId("rate-why"), none ? sentence(rate?.why ?? "no results yet") : rate.note ?? "");
    byId("rate-why").classList.toggle("note", !none);
    const second = thickness?.value ? withSigma(thickness.value, thickness.sigma) : null;
    const perLayer = !none && period?.value ? `one oscillation in ${brief(period.value, 4)} s` : "";
    say(byId("rate-second"), second ? `${second.value} ± ${second.sigma} nm/s` : perLayer);
    byId("rate-second").classList.toggle("nm", second !== null);
    this.speak(none ? `Growth rate undetermined: ${rate?.why ?? "no results yet"}` : `Growth rate ${text.value} plus or minus ${text.sigma || "unknown"} ${unitText(rate.unit)}`);
  }

  /** Aloud at most every ten seconds; sooner only when it comes or goes. */
  speak(text) {
    const kind = text.startsWith("Growth rate undetermined");
    if (performance.now() - this.spokenAt < SPOKEN_EACH_MS && kind === this.spokenKind) return;
    [this.spokenAt, this.spokenKind] = [performance.now(), kind];
    say(byId("rate-spoken"), text);
  }

  showCounted({ value, sigma, why, since }) {
    const parts = this.tiles.get("counted");
    say(parts.title, `Oscillations since ${since}`);
    this.fill(parts, value === null ? null : { value: value.toFixed(sigma && sigma >= 0.5 ? 0 : 1), sigma: sigma ? brief(sigma, 1) : "" }, "", value === null ? why : "");
  }

  showTile(name, value, { factor = 1, unit, words, turning: onlyTurning, calibrated, warnOver }, turning) {
    const parts = this.tiles.get(name);
    parts.box.hidden = !value || (onlyTurning && !turning) || (calibrated && value.value === null) || (turning && value.value === null && value.why.startsWith("the substrate rotates"));
    if (parts.box.hidden) return;
    if (value.value === null) {
      this.fill(parts, null, "", value.why);
      return;
    }
    const text = withSigma(value.value * factor, value.sigma === null ? null : value.sigma * factor);
    const told = words ? { value: words(value.value), sigma: "" } : text;
    this.fill(parts, told, words ? "" : unit ?? unitText(value.unit), words ? `spottiness ${fixed(value.value, 2)}` : value.note ?? "");
    parts.box.classList.toggle("warn", warnOver !== undefined && value.value > warnOver);
  }

  fill(parts, text, unit, under) {
    parts.box.classList.toggle("none", text === null);
    say(parts.value, text === null ? "undetermined" : text.value);
    say(parts.sigma, text?.sigma ? ` ± ${text.sigma}` : "");
    say(parts.unit, text === null || !unit ? "" : ` ${unit}`);
    say(parts.under, under ?? "");
    parts.box.title = under ?? "";
  }

  showAge(seconds, { ended }) {
    const age = byId("age");
    if (seconds === null) say(age, "");
    else if (ended) say(age, `Analysed ${ageText(seconds)} ago`);
    else say(age, `Newest result ${ageText(seconds)} ago`);
    age.classList.toggle("old", !ended && seconds !== null && seconds > OLD_S);
  }
}

function surfaceWords(spottiness) {
  if (spottiness < 0.15) return "2D, streaks";
  return spottiness < 0.45 ? "mixed" : "3D, spots";
}

export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";
}
