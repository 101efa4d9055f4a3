// How the newest frame is exposed: the histogram, the extreme values and the share of saturated pixels.
import { byId, setText } from "/dashboard/static/js/dom.js";
import { brief } from "/dashboard/static/js/format.js";
import { colour } from "/dashboard/static/js/theme.js";

const GAP = 2;

export function showExposure(exposure) {
  const { histogram, minimum, maximum, mean, white, saturated, advice } = exposure;
  draw(histogram);
  setText(byId("exposure-line"), `Grey values ${minimum} to ${maximum} of ${white}, mean ${brief(mean, 3)}.`);
  setText(byId("saturated"), `Saturated: ${saturated === 0 ? "no pixel" : `${brief(100 * saturated, 2)} % of the pixels`}.`);
  byId("saturated").classList.toggle("bad", saturated > 1e-4);
  setText(byId("advice"), advice ? `${advice[0].toUpperCase()}${advice.slice(1)}.` : "");
}

/** Bars on a logarithmic scale; the last one, which has the saturated pixels, is red. */
function draw(counts) {
  const canvas = byId("histogram");
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const top = Math.log1p(Math.max(1, ...counts));
  const step = width / counts.length;
  counts.forEach((count, k) => {
    const tall = (Math.log1p(count) / top) * (height - 4);
    context.fillStyle = colour(k === counts.length - 1 ? "bad" : "second");
    context.fillRect(k * step + GAP / 2, height - tall, step - GAP, tall);
  });
}
