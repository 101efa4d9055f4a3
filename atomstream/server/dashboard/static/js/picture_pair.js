// Two pictures at the same place of two growths, and their difference.
import { askBytes } from "./api.js";
import { byId, setText } from "./dom.js";
import { brief, duration } from "./format.js";

const HEADER_BYTES = 32;

export class Pair {
  constructor(dataId) {
    this.dataId = dataId;
    this.kept = new Map();
    this.number = 0;
  }

  /** Shows the pictures at these times in s; null where a growth has none. */
  async show(ghostId, time, ghostTime) {
    const number = ++this.number;
    const [own, earlier] = await Promise.all([this.load(this.dataId, time), this.load(ghostId, ghostTime)]);
    if (number !== this.number) return;
    const white = Math.max(whiteOf(own), whiteOf(earlier));
    drawGrey("today", own, "This growth", white);
    drawGrey("ghost", earlier, "Earlier growth", white);
    drawDifference(own, earlier);
  }

  async load(id, time) {
    if (id === null || time === null) return null;
    const key = `${id} ${time}`;
    if (!this.kept.has(key)) {
      if (this.kept.size > 40) this.kept.clear();
      this.kept.set(key, askBytes(`/dashboard/streams/${id}/picture?time=${time}`).then(({ bytes }) => read(bytes), () => null));
    }
    return this.kept.get(key);
  }
}

/** `{ time, frame, width, height, level, pixels }`; a pixel of 255 is `level` counts. */
function read(bytes) {
  const head = new DataView(bytes);
  const [frame, width, height] = [8, 12, 16].map((at) => head.getUint32(at, true));
  return { time: head.getFloat64(0, true), frame, width, height, level: head.getUint32(28, true), pixels: new Uint8Array(bytes, HEADER_BYTES) };
}

function fill(name, picture, colourOf, caption) {
  const canvas = byId(`picture-${name}`);
  setText(byId(`caption-${name}`), caption);
  const [width, height] = picture ? [picture.width, picture.height] : [4, 3];
  canvas.width = width;
  canvas.height = height;
  canvas.dataset.frame = picture ? String(picture.frame) : "";
  const context = canvas.getContext("2d", { alpha: false });
  if (!picture) return;
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let k = 0; k < words.length; k++) words[k] = colourOf(k);
  context.putImageData(image, 0, 0);
}

/** The counts above which only one pixel in a thousand is; 0 without a picture. */
function whiteOf(picture) {
  if (!picture) return 0;
  const numbers = new Uint32Array(256);
  for (const pixel of picture.pixels) numbers[pixel] += 1;
  let value = 255;
  for (let above = numbers[255]; value > 0 && above <= picture.pixels.length / 1000; above += numbers[value]) value -= 1;
  return (value * picture.level) / 255;
}

/** Draws a picture in grey; `white` counts and more are white, in both pictures, so that they can be compared. */
function drawGrey(name, picture, title, white) {
  const caption = picture ? `${title}: ${duration(picture.time)}, frame ${picture.frame}; white: ${brief(white, 3)} counts` : `${title}: no picture here`;
  const gain = white > 0 && picture ? picture.level / white : 1;
  fill(name, picture, (k) => (0xff000000 | (Math.min(255, Math.round(picture.pixels[k] * gain)) * 0x10101)) >>> 0, caption);
}

function drawDifference(own, earlier) {
  if (!own || !earlier) {
    fill("difference", null, null, "Difference: needs both pictures");
    return;
  }
  if (own.width !== earlier.width || own.height !== earlier.height) {
    fill("difference", null, null, "Difference: the pictures have different sizes");
    return;
  }
  const [scale, other] = [own.level / 255, earlier.level / 255];
  const values = Float32Array.from(own.pixels, (pixel, k) => pixel * scale - earlier.pixels[k] * other);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const colourOf = (k) => {
    const part = largest > 0 ? Math.round((255 * Math.abs(values[k])) / largest) : 0;
    // Little-endian words: alpha, blue, green, red. Orange for more, blue for less.
    return (values[k] >= 0 ? 0xff000000 | ((part >> 3) << 16) | ((part * 5) >> 3 << 8) | part : 0xff000000 | (part << 16) | ((part * 5) >> 3 << 8) | (part >> 2)) >>> 0;
  };
  fill("difference", own, colourOf, `Difference: at most ${brief(largest, 3)} counts`);
}
