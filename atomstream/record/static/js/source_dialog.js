// The dialog that opens a camera: source, settings, and changes of the frames.
import { ask, RequestError } from "/dashboard/static/js/api.js";
import { setUpDialog } from "/dashboard/static/js/dialog.js";
import { byId, el, setHidden, setText } from "/dashboard/static/js/dom.js";
import { visible } from "/dashboard/static/js/format.js";

const NUMBERS = ["exposure_ms", "gain", "fps"];
const CHOICES = ["bin_factor", "rotate"];
const PATHS = { file: "File or folder with the recording", watch: "Folder into which another program writes images", camera: "Name of the camera, such as basler:0 or opencv:1" };
const MORE = [["screen", "screen: the whole screen"], ["file", "file: a recording that is played"], ["watch", "watch: new images in a folder"], ["camera", "camera: by its name"]];

export class SourceDialog {
  /** `present()` is what is open now, in the form of the request; null if nothing is. */
  constructor(present) {
    this.present = present;
    this.found = [{ name: "simulator", description: "simulated growth, without a camera" }];
    this.dialog = setUpDialog("source", () => this.open());
    byId("source-button").addEventListener("click", () => this.show());
    byId("source").addEventListener("change", () => this.showPath());
    this.fill();
  }

  show(changes = {}) {
    const now = this.present();
    if (now !== null) this.prefill({ ...now, ...changes });
    this.dialog.open(byId("source"));
    if (!byId("source-open").disabled) this.search();
  }

  /** Shows what is open, so that one value can be changed without entering the others again. */
  prefill(plan) {
    const [kind, ...rest] = plan.source.split(":");
    const typed = kind === "file" || kind === "watch";
    if (!typed && !this.found.some(({ name }) => name === plan.source)) this.found.push({ name: plan.source, description: "open now" });
    this.fill(typed ? kind : plan.source);
    if (typed) byId("source-path").value = rest.join(":");
    for (const name of NUMBERS) byId(name).value = plan[name] ?? "";
    for (const name of CHOICES) byId(name).value = String(plan[name]);
    byId("flip").value = plan.flip;
    byId("crop").value = (plan.crop ?? []).join(" ");
  }

  setLocked(locked) {
    setHidden(byId("source-locked"), !locked);
    byId("source-open").disabled = locked;
  }

  async search() {
    setText(byId("source-search"), "Searching for cameras …");
    try {
      const { sources, not_searched } = await ask("/record/sources");
      const open = this.found.filter(({ name }) => name === byId("source").value && !sources.some((one) => one.name === name));
      this.found = [...sources, ...open];
      this.fill();
      const kinds = Object.keys(not_searched);
      setText(byId("source-search"), kinds.length ? `Not found, because a driver is not installed or did not answer: ${kinds.join(", ")}.` : "");
      byId("source-search").title = Object.values(not_searched).join("\n");
    } catch (error) {
      setText(byId("source-search"), error.message);
    }
  }

  fill(chosen = byId("source").value) {
    const list = byId("source");
    const found = this.found.map(({ name, description }) => el("option", { value: name }, visible(`${name}: ${description}`)));
    list.replaceChildren(...found, ...MORE.map(([value, text]) => el("option", { value }, text)));
    if ([...list.options].some((option) => option.value === chosen)) list.value = chosen;
    this.showPath();
  }

  showPath() {
    const label = PATHS[byId("source").value];
    setHidden(byId("source-path-field"), label === undefined);
    setText(byId("source-path-label"), label ?? "");
  }

  async open() {
    await ask("/record/source", { method: "POST", body: this.body() });
  }

  body() {
    const kind = byId("source").value;
    const path = byId("source-path").value.trim();
    if (PATHS[kind] !== undefined && !path) throw new RequestError(400, `Enter: ${PATHS[kind]}.`);
    const body = { source: PATHS[kind] === undefined ? kind : `${kind}:${path}`, flip: byId("flip").value };
    for (const name of NUMBERS) body[name] = number(byId(name));
    for (const name of CHOICES) body[name] = Number(byId(name).value);
    const crop = byId("crop").value.trim();
    if (crop) {
      body.crop = crop.split(/[\s,;]+/).map(Number);
      if (body.crop.length !== 4 || !body.crop.every(Number.isInteger)) throw new RequestError(400, "Crop is four whole numbers: x, y, width and height in pixels.");
    }
    return body;
  }
}

/** The number in a field, null if it is empty; a comma is a decimal point too. */
export function number(field) {
  const text = field.value.trim().replace(",", ".");
  if (!text) return null;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new RequestError(400, `“${field.value}” is not a number.`);
  return value;
}
