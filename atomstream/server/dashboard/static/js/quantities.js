// The results that the pages of several growths can show, and the texts of a growth's summary.
import { brief, unitText, withSigma } from "./format.js";

export const QUANTITIES = [
  ["growth_rate_ml_s", "Growth rate"],
  ["specular_intensity", "Specular intensity"],
  ["oscillations_counted", "Oscillations since the last segment mark"],
  ["relative_spacing_change", "Spacing change"],
  ["lattice_spacing", "Streak spacing"],
  ["specular_fwhm_1", "Specular width"],
  ["first_order_intensity", "First-order intensity"],
  ["reconstruction_intensity", "Half order over first"],
  ["spottiness", "2D / 3D (spottiness)"],
];

/** The unit of a quantity on an axis: the growth rate counts layers. */
export function axisUnit(name, unit) {
  return name === "growth_rate_ml_s" ? unitText("monolayer/s") : unitText(unit);
}

/** `0.402 ± 0.003 ML/s`; empty without a number. */
export function measured(value) {
  if (!value || value.value === null) return "";
  const text = withSigma(value.value, value.sigma, true);
  return `${text.sigma ? `${text.value} ± ${text.sigma}` : brief(value.value)} ${unitText(value.unit)}`.trimEnd();
}

/** Thickness in nm if the stream is calibrated, else layers. */
export function grown(summary) {
  return measured(summary?.thickness_nm) || measured(summary?.layers);
}
