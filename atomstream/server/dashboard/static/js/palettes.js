// Palettes of the picture: from a brightness of 0 to 1 to a colour.

/** Viridis (CC0, from matplotlib), every eighth grey level of 256; between them it is interpolated. */
const VIRIDIS = "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725";
/** The colour of a screen with P43 phosphor: dark green, green, and nearly white where it is brightest. */
const PHOSPHOR = "000000 04210b 0a4a1c 137b32 22b04d 48d96f 86f2a0 c4ffd0 f2fff4";

export const PALETTES = {
  gray: ["Gray", gradient("000000 ffffff")],
  viridis: ["Viridis", gradient(VIRIDIS)],
  inverted: ["Inverted", gradient("ffffff 000000")],
  phosphor: ["Green phosphor", gradient(PHOSPHOR)],
};

/** The colour of pixels at full scale, which may be saturated; in the inverted picture darker, to be seen on white. */
const FULL_SCALE = { inverted: 0xff1e1ed0 };
const RED = 0xff4a5aff;

/**
 * The colours (RGBA words) of `size` steps of brightness. `codeOf(k)` is the share of full scale (0 to 1) of step k; it is
 * multiplied by `gain`, and its power of 1/`gamma` is shown. The last step is red: full scale.
 */
export function colourTable({ palette, gain, gamma }, size, codeOf) {
  const [, paint] = PALETTES[palette] ?? PALETTES.gray;
  const table = new Uint32Array(size);
  for (let k = 0; k < size; k++) table[k] = paint(Math.min(1, gain * codeOf(k)) ** (1 / gamma));
  table[size - 1] = FULL_SCALE[palette] ?? RED;
  return table;
}

function gradient(text) {
  const stops = text.split(" ").map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  return (share) => {
    const place = share * (stops.length - 1);
    const first = Math.min(stops.length - 2, Math.floor(place));
    const [r, g, b] = stops[first].map((value, k) => Math.round(value + (stops[first + 1][k] - value) * (place - first)));
    return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  };
}
