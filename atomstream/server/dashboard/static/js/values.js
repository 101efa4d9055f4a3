// The growth rate in large digits, and the tiles with the other values.
import { byId, el, setText } from "./dom.js";
import { brief, fixed, unitText, visible, withSigma } from "./format.js";

const SPOKEN_EACH_MS = 10000;
const MAX_VIEWS = 6;
const NO_FRAMES = "no frames were received";

/** [name of the value, title, { factor, unit, from }]: shown in this order where they make sense. */
const TILES = [
  ["oscillation_period", "Oscillation period", {}],
  ["layers_grown", "Layers since the start", {}],
  ["layers_total", "Layers in all", { determined: true }],
  ["thickness_nm", "Total thickness", { calibrated: true }],
  ["lattice_spacing", "Streak spacing", {}],
  ["relative_lattice_change", "Lattice change", { factor: 100, unit: "%", signed: true }],
  ["referenced_strain", "Strain", { factor: 100, unit: "%", signed: true, calibrated: true }],
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

export class Values {
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

  /** Notes whether the stream has ended without a frame; returns true if that is new. */
  setNoFrames(noFrames) {
    const isNew = noFrames && !this.noFrames;
    this.noFrames = noFrames;
    return isNew;
  }

  /** `nameOf(id)` returns the label of a view's azimuth; "" if it has none. */
  show(values, { turning, views, nameOf }) {
    this.showRate(values.growth_rate_ml_s, values.growth_rate_nm_s, values.oscillation_period);
    this.rateWhy = values.growth_rate_ml_s?.why ?? "";
    // Strain is the same quantity against the user's reference: show only one of them.
    const strained = values.referenced_strain?.value ?? null;
    const shown = strained === null ? { ...values } : { ...values, relative_lattice_change: undefined };
    // Hidden while there is one segment only: the tile beside it shows the same number.
    if (values.layers_total?.value === values.layers_grown?.value) shown.layers_total = undefined;
    const [thickness, total] = [shown.thickness_nm, shown.layers_total];
    if (thickness?.note && total && thickness.note === total.note)
      shown.thickness_nm = { ...thickness, note: "as for the layers since the start" };
    for (const [name, , how] of TILES) this.showTile(name, shown[name], how, turning);
    this.showSpacingChange(values);
    this.showSaturated(values);
    const first = [...views].sort((a, b) => a.view_id - b.view_id).slice(0, MAX_VIEWS);
    first.forEach((view) => this.showView(view, nameOf(view.view_id)));
    if (first.length) this.hideOtherViews(new Set(first.map(({ view_id: id }) => `view ${id}`)));
  }

  /** Below the spacing: its change, whose sign is opposite to that of the lattice. */
  showSpacingChange({ lattice_spacing: spacing, relative_spacing_change: change }) {
    if (!spacing || spacing.value === null || !change || change.value === null) return;
    const text = withSigma(100 * change.value, change.sigma === null ? null : 100 * change.sigma);
    setText(this.tiles.get("lattice_spacing").under, `${signed(text.value)} ± ${text.sigma || "?"} % ${change.note}`.trim());
  }

  /** Below the share of the specular region: those of the picture and the user's boxes, and the clip level. */
  showSaturated(values) {
    const { saturated_picture: picture, clip_level: level } = values;
    if (!level || !picture) return;
    const boxes = Object.entries(values).filter(([name]) => name.startsWith("saturated:")).map(([name, { value }]) => [visible(name.slice(10)), value]);
    const parts = [["picture", picture.value], ...boxes].map(([name, value]) => `${name} ${brief(100 * value, 2)} %`);
    const tile = this.tiles.get("saturated_fraction");
    setText(tile.under, `of the spot; ${parts.join(", ")}; clip level ${brief(level.value, 5)} (${level.note.replace("the largest value of ", "").replace(" in the pictures", "")})`);
    tile.box.classList.toggle("warn", [values.saturated_fraction.value, picture.value, ...boxes.map(([, value]) => value)].some((value) => value > 0.002));
  }

  /** Hides the tiles of views that are no longer reported. */
  hideOtherViews(shown) {
    for (const [name, { box }] of this.tiles) if (name.startsWith("view ")) box.hidden = !shown.has(name);
  }

  /** The spacing of one view of a rotating sample. */
  showView({ view_id: id, angle_deg: angle, spacing_px: spacing, turns }, azimuth) {
    const name = `view ${id}`;
    const parts = this.tiles.get(name) ?? this.tile(name, "");
    setText(parts.title, `Spacing, ${azimuth || `view ${id}`} at ${fixed(angle, 1)}°`);
    const text = spacing.value === null ? null : withSigma(spacing.value, spacing.sigma);
    this.fill(parts, text, unitText(spacing.unit), spacing.value === null ? spacing.why : `seen in ${turns} turns`);
  }

  /** The reason why a rotating sample has no views (yet). */
  showNoViews(why) {
    if (!why && !this.tiles.has("views")) return;
    const parts = this.tiles.get("views") ?? this.tile("views", "Views of the rotating sample");
    parts.box.classList.add("wide");
    parts.box.hidden = !why;
    this.fill(parts, null, "", why);
    setText(parts.value, "none");
  }

  /** Shows the rate, or "undetermined" with the reason. */
  showRate(rate, thickness, period) {
    const none = !rate || rate.value === null;
    byId("rate").classList.toggle("none", none);
    const text = none ? { value: "undetermined", sigma: "" } : withSigma(rate.value, rate.sigma, true);
    setText(byId("rate-value"), text.value);
    setText(byId("rate-sigma"), text.sigma ? `± ${text.sigma}` : "");
    setText(byId("rate-unit"), none ? "" : unitText(rate.unit));
    const why = this.noFrames ? NO_FRAMES : rate?.why ?? "no results yet";
    setText(byId("rate-why"), none ? sentence(why) : rate.note ?? "");
    byId("rate-why").classList.toggle("note", !none);
    const second = thickness?.value ? withSigma(thickness.value, thickness.sigma) : null;
    const perLayer = !none && period?.value ? `one oscillation in ${brief(period.value, 4)} s` : "";
    setText(byId("rate-second"), second ? `${second.value} ± ${second.sigma} nm/s` : perLayer);
    byId("rate-second").classList.toggle("nm", second !== null);
    this.speak(none ? `Growth rate undetermined: ${why}` : `Growth rate ${text.value} plus or minus ${text.sigma || "unknown"} ${unitText(rate.unit)}`);
  }

  /** For screen readers: at most every ten seconds, or at once when the rate appears or disappears. */
  speak(text) {
    const kind = text.startsWith("Growth rate undetermined");
    if (performance.now() - this.spokenAt < SPOKEN_EACH_MS && kind === this.spokenKind) return;
    [this.spokenAt, this.spokenKind] = [performance.now(), kind];
    setText(byId("rate-spoken"), text);
  }

  showCounted({ value, sigma, why, note, since }) {
    const parts = this.tiles.get("counted");
    setText(parts.title, `Oscillations since ${since}`);
    this.fill(parts, value === null ? null : { value: value.toFixed(sigma && sigma >= 0.5 ? 0 : 1), sigma: sigma ? brief(sigma, 1) : "" }, "", value === null ? this.whyText(why) : note);
  }

  /** `since` names the last mark of the user that begins a segment, or the start; `isAhead` of the analysis: nothing grew. */
  showLayersSince(since, isAhead) {
    const parts = this.tiles.get("layers_grown");
    setText(parts.title, `Layers since ${since}`);
    if (isAhead) this.fill(parts, { value: "0.0", sigma: "" }, "", "");
  }

  showTile(name, value, { factor = 1, unit, words, signed: withSign, turning: onlyTurning, calibrated, determined, warnOver }, turning) {
    const parts = this.tiles.get(name);
    parts.box.hidden = !value || (onlyTurning && !turning) || ((calibrated || determined) && value.value === null) || (turning && value.value === null && value.why.startsWith("the substrate rotates"));
    if (parts.box.hidden) return;
    if (value.value === null) {
      this.fill(parts, null, "", this.whyText(value.why));
      return;
    }
    const text = withSigma(value.value * factor, value.sigma === null ? null : value.sigma * factor);
    if (withSign) text.value = signed(text.value);
    const shown = words ? { value: words(value.value), sigma: "" } : text;
    this.fill(parts, shown, words ? "" : unit ?? unitText(value.unit), words ? `spottiness ${fixed(value.value, 2)}` : value.note ?? "");
    parts.box.classList.toggle("warn", warnOver !== undefined && value.value > warnOver);
  }

  /** The reason why there is no number; that of the growth rate is not repeated in each tile. */
  whyText(why) {
    if (this.noFrames) return NO_FRAMES;
    return why && why === this.rateWhy ? "for the same reason as the growth rate" : why;
  }

  fill(parts, text, unit, under) {
    parts.box.classList.toggle("none", text === null);
    setText(parts.value, text === null ? "undetermined" : text.value);
    setText(parts.sigma, text?.sigma ? ` ± ${text.sigma}` : "");
    setText(parts.unit, text === null || !unit ? "" : ` ${unit}`);
    setText(parts.under, under ?? "");
  }

  /** Shows the age of the numbers in words; stale ones lose their colour (css/stream.css). */
  showAge({ text, stale }) {
    setText(byId("age"), text);
    byId("age").classList.toggle("old", stale);
    byId("main").classList.toggle("stale", stale);
  }
}

/** A change states its sign also where it is positive. */
function signed(text) {
  return /[1-9]/.test(text) && !text.startsWith("\u2212") ? `+${text}` : text;
}

function surfaceWords(spottiness) {
  if (spottiness < 0.15) return "2D, streaks";
  return spottiness < 0.45 ? "mixed" : "3D, spots";
}

export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";
}
