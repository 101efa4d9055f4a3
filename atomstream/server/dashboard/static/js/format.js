// Formatting of numbers (digits by their uncertainty), units and times.

const MINUS = "\u2212";
const UNITS = { "1/min": "rpm", "1/s": "/s", "1": "", "counts/px": "counts/px" };

export function unitText(unit) {
  return UNITS[unit] ?? (unit ?? "").replace(/^monolayers?\b/, "ML");
}

/** Decimals so that `sigma` has one significant digit, or two if it begins with 1 (or 2, unless `short`). */
export function decimalsFor(sigma, short = false) {
  if (!(sigma > 0)) return 3;
  const exponent = Math.floor(Math.log10(sigma));
  const leading = sigma / 10 ** exponent;
  return Math.min(9, Math.max(0, (leading < (short ? 1.45 : 2.95) ? 1 : 0) - exponent));
}

export function fixed(value, decimals) {
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
}

/** `{ value: "0.402", sigma: "0.003" }`; four significant digits if there is no uncertainty. */
export function withSigma(value, sigma, short = false) {
  if (sigma === null || sigma === undefined || !(sigma > 0)) return { value: brief(value), sigma: "" };
  const decimals = decimalsFor(sigma, short);
  return { value: fixed(value, decimals), sigma: fixed(sigma, decimals) };
}

/** Four significant digits, thousands separated, exponent for very small numbers. */
export function brief(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 10 ** digits) return Math.round(value).toLocaleString("en-GB").replaceAll(",", "\u202f").replace("-", MINUS);
  if (size !== 0 && size < 1e-4) return value.toExponential(1).replaceAll("-", MINUS);
  return String(Number(value.toPrecision(digits))).replace("-", MINUS);
}

/** The text of values that cover a range: a hundredth of it has one digit, because more could not be seen in a chart. */
export function digitsFor(range) {
  const decimals = range > 0 ? Math.min(9, Math.max(0, Math.ceil(-Math.log10(range / 100)))) : null;
  return (value) => (decimals === null || Math.abs(value) >= 1e4 ? brief(value) : fixed(value, decimals));
}

/** A time span: `0:04.2`, `1:02.5`, `2:03:04`. */
export function duration(seconds, { tenths = true } = {}) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  return clock(seconds, tenths && Math.abs(seconds) < 3599.95 ? 1 : 0);
}

/** A time span with the given number of decimals: `2:03:04.25`. */
export function clock(seconds, decimals) {
  // Rounded to units of the last digit first: otherwise 59.96 s would be shown as 0:60.0.
  const units = Math.round(Math.abs(seconds) * 10 ** decimals);
  const perMinute = 60 * 10 ** decimals;
  const [hours, minutes] = [Math.floor(units / (60 * perMinute)), Math.floor(units / perMinute) % 60];
  const rest = ((units % perMinute) / 10 ** decimals).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return `${seconds < 0 && units > 0 ? MINUS : ""}${hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes}:${rest}`;
}

/** Distances of ticks on a time axis in s: round in seconds, minutes, hours or days. */
export const TIME_STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30,
  60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000,
];

/** Tick labels with enough decimals to differ from each other. */
export function axisTimes(at) {
  const step = at.length > 1 ? at[1] - at[0] : 1;
  return at.map((time) => clock(time, Math.min(3, Math.max(0, Math.ceil(-Math.log10(step) - 1e-6)))));
}

export function ageText(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

/** An age in words: `12 seconds`, `3 minutes`, `1 hour`, `2 days`. */
export function ageWords(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [number, unit] = whole < 120 ? [whole, "second"] : whole < 7200 ? [Math.round(whole / 60), "minute"] : whole < 172800 ? [Math.round(whole / 3600), "hour"] : [Math.round(whole / 86400), "day"];
  return `${number} ${unit}${number === 1 ? "" : "s"}`;
}

export function bytesText(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = bytes > 0 ? Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3)) : 0;
  return `${brief(bytes / 1000 ** step, 3)} ${units[step]}`;
}

export function momentText(unixMs) {
  return new Date(unixMs).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** Free text with control and direction characters made visible, so that it cannot hide or reorder other text. */
export function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
}

export const STATUS = {
  stream_active: ["Live", "live"],
  stream_interrupted: ["Interrupted", "warn"],
  stream_finalizing: ["Finishing", "live"],
  stream_error: ["No data for a long time", "bad"],
  success: ["Complete", ""],
  error: ["Failed", "bad"],
};

/** Labels of one axis with the same number of digits, thousands as k and M. */
export function axisTexts(at) {
  if (!at.length) return [];
  const largest = Math.max(...at.map(Math.abs));
  const [scale, suffix] = largest >= 1e6 ? [1e6, "M"] : largest >= 1e4 ? [1e3, "k"] : [1, ""];
  const step = at.length > 1 ? Math.abs(at[1] - at[0]) / scale : largest / scale || 1;
  let decimals = 0;
  while (decimals < 6 && Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6) decimals += 1;
  return at.map((value) => fixed(value / scale, decimals) + (Math.abs(value) < step * scale * 1e-6 ? "" : suffix));
}
