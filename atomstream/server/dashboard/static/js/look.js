// The look of the picture: palette, gain and gamma, stored by the browser.
import { byId, el, setText, setUpDrawer } from "./dom.js";
import { brief } from "./format.js";
import { colourTable, PALETTES } from "./palettes.js";
import { loadChoices, saveChoices } from "./stored_choices.js";

const PLAIN = { palette: "gray", gain: 1, gamma: 1 };
const LIMITS = { gain: [0.25, 32], gamma: [0.3, 4] };
/** Brightness steps where the picture is computed (dark frame): fine enough for the highest gain. */
const FINE_STEPS = 4096;

export class Look extends EventTarget {
  constructor() {
    super();
    this.settings = loadChoices("look", PLAIN);
    if (!Object.hasOwn(PALETTES, this.settings.palette)) this.settings.palette = PLAIN.palette;
    for (const [name, limits] of Object.entries(LIMITS)) this.settings[name] = within(this.settings[name], limits);
    byId("look-palette").replaceChildren(...Object.entries(PALETTES).map(([value, [text]]) => el("option", { value }, text)));
    setUpDrawer(byId("look-button"), byId("look"), () => byId("look-palette").focus());
    byId("look-palette").addEventListener("change", () => this.set({ palette: byId("look-palette").value }));
    // Both sliders are logarithmic: each step multiplies by the same factor.
    for (const name of Object.keys(LIMITS)) {
      byId(`look-${name}`).addEventListener("input", () => this.set({ [name]: 2 ** Number(byId(`look-${name}`).value) }));
    }
    byId("look-reset").addEventListener("click", () => this.set(PLAIN));
    this.update();
  }

  set(changes) {
    Object.assign(this.settings, changes);
    for (const [name, limits] of Object.entries(LIMITS)) this.settings[name] = within(this.settings[name], limits);
    saveChoices("look", this.settings);
    this.update();
    this.dispatchEvent(new Event("change"));
  }

  update() {
    const { settings } = this;
    this.tables = new Map();
    byId("look-palette").value = settings.palette;
    for (const name of Object.keys(LIMITS)) {
      const slider = byId(`look-${name}`);
      slider.value = String(Math.log2(settings[name]));
      const text = name === "gain" ? `${brief(settings.gain, 2)}×` : brief(settings.gamma, 2);
      slider.setAttribute("aria-valuetext", text);
      setText(byId(`look-${name}-now`), text);
    }
    byId("look-button").classList.toggle("changed", Object.keys(PLAIN).some((name) => settings[name] !== PLAIN[name]));
  }

  /** Colours of the 256 codes of a picture; `root`: a code is the square root of the brightness. */
  coded(root) {
    return this.table(root ? "root" : "even", 256, (code) => (root ? (code / 255) ** 2 : code / 255));
  }

  /** Colours of evenly spaced brightness. */
  fine() {
    return this.table("fine", FINE_STEPS, (step) => step / (FINE_STEPS - 1));
  }

  table(kind, size, codeOf) {
    if (!this.tables.has(kind)) this.tables.set(kind, colourTable(this.settings, size, codeOf));
    return this.tables.get(kind);
  }
}

function within(value, [low, high]) {
  return Math.min(high, Math.max(low, value));
}
