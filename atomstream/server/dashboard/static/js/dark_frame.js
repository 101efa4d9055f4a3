// A dark frame: the mean of pictures without beam, subtracted from the displayed picture. The browser stores one.
import { byId, setHidden, setText } from "./dom.js";
import { loadChoices, removeChoices, saveChoices } from "./stored_choices.js";

const PICTURES = 16;
const NONE = { width: 0, height: 0, level: 0, taken: "", pixels: "" };

/** The shares of full scale (0 to 1) of the 256 codes of a picture. */
export function shares(root) {
  return Float32Array.from({ length: 256 }, (_, code) => (root ? (code / 255) ** 2 : code / 255));
}

/**
 * Writes the colours of `pixels` minus the dark ones: `dark` are shares of the full scale `darkLevel` in counts. `colours`
 * are those of evenly spaced brightness, the last one is that of full scale.
 */
export function paintWithout(dark, darkLevel, pixels, level, image, colours) {
  const bright = shares(level > 255);
  const [factor, top] = [darkLevel / level, colours.length - 1];
  for (let k = 0; k < pixels.length; k++) {
    const share = bright[pixels[k]] - factor * dark[k];
    image[k] = pixels[k] === 255 ? colours[top] : colours[share > 0 ? Math.min(top - 1, Math.round(share * top)) : 0];
  }
}

export class DarkFrame extends EventTarget {
  constructor() {
    super();
    const kept = loadChoices("dark", NONE);
    this.use(kept.pixels ? { ...kept, dark: decoded(kept.pixels, kept.level > 255) } : null);
    byId("dark-take").addEventListener("click", () => this.take());
    byId("dark-remove").addEventListener("click", () => {
      removeChoices("dark");
      this.use(null);
      this.dispatchEvent(new Event("change"));
    });
  }

  use(frame) {
    this.frame = frame && frame.dark.length === frame.width * frame.height ? frame : null;
    this.sum = null;
    setHidden(byId("dark-remove"), this.frame === null);
    setText(byId("dark-state"), "");
    byId("dark-take").title = this.frame ? `Taken ${this.frame.taken}. Replace it by the mean of the next ${PICTURES} pictures, without beam.` : `The mean of the next ${PICTURES} pictures, without beam`;
  }

  take() {
    this.sum = null;
    this.count = PICTURES;
    this.dispatchEvent(new Event("change"));
    this.showState();
  }

  get taking() {
    return this.count > 0;
  }

  showState() {
    setText(byId("dark-state"), this.taking ? `${PICTURES - this.count}/${PICTURES}` : "");
  }

  /** True if it is subtracted from pictures of this size: one of another camera is not. */
  fits(width, height) {
    return !this.taking && this.frame?.width === width && this.frame.height === height;
  }

  /** Adds a picture to the mean that is being taken. `still`: it is shown alone, so it is the dark frame. */
  add(pixels, width, height, level, still) {
    if (!this.taking) return;
    const bright = shares(level > 255);
    if (this.sum?.length !== pixels.length || this.level !== level) [this.sum, this.level, this.count] = [new Float32Array(pixels.length), level, PICTURES];
    for (let k = 0; k < pixels.length; k++) this.sum[k] += bright[pixels[k]];
    this.count -= 1;
    const added = PICTURES - this.count;
    if (this.count > 0 && !still) {
      this.showState();
      return;
    }
    this.count = 0;
    const dark = this.sum.map((value) => value / added);
    const taken = new Date().toLocaleString();
    const kept = saveChoices("dark", { width, height, level, taken, pixels: encoded(dark, level > 255) });
    this.use({ width, height, level, taken, dark });
    if (!kept) setText(byId("dark-state"), "not kept");
  }

  paint(pixels, image, level, colours) {
    paintWithout(this.frame.dark, this.frame.level, pixels, level, image, colours);
  }
}

function encoded(dark, root) {
  let text = "";
  for (const share of dark) text += String.fromCharCode(Math.round(255 * (root ? Math.sqrt(share) : share)));
  return btoa(text);
}

function decoded(text, root) {
  const bright = shares(root);
  try {
    return Float32Array.from(atob(text), (sign) => bright[sign.charCodeAt(0)]);
  } catch {
    return new Float32Array(0); // not what this page has stored
  }
}
