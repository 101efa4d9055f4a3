// Alarms on numbers of the stream: rules in a dialog; a banner and a sound while one is raised.
import { ask } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { ageWords, unitText, visible } from "./format.js";
import { mayWrite } from "./rights.js";
import { loadChoices, saveChoices } from "./stored_choices.js";
import { sentence } from "./values.js";

const TICK_MS = 1000;
const BEEP_EACH_MS = 2500;
const TITLES = {
  growth_rate_ml_s: "Growth rate",
  growth_rate_nm_s: "Growth rate in nm/s",
  oscillation_period: "Oscillation period",
  oscillations_since_mark: "Oscillations since the mark",
  layers_grown: "Layers since the last segment mark",
  layers_total: "Layers in all",
  thickness_nm: "Total thickness",
  lattice_spacing: "Streak spacing",
  relative_lattice_change: "Lattice change",
  relative_spacing_change: "Spacing change",
  referenced_strain: "Strain",
  lattice_parameter: "Lattice parameter",
  specular_fwhm_1: "Specular width",
  first_order_fwhm_1: "First-order width",
  coherence_length: "Coherence length",
  spottiness: "Spottiness (2D / 3D)",
  half_order_ratio: "Half order / first",
  damping_layers: "Damping",
  rotation_rpm: "Rotation",
  saturated_fraction: "Saturated share of the spot",
  saturated_picture: "Saturated share of the picture",
};

export class Alarms {
  /** `values()` are the newest results by name. */
  constructor(dataId, values) {
    this.path = `/rheed/stream/${dataId}/alarms`;
    this.values = values;
    this.rules = [];
    this.raised = [];
    this.silenced = new Set();
    this.heardAt = performance.now();
    this.kept = loadChoices("alarms", { sound: true });
    this.dialog = byId("alarm-dialog");
    byId("alarms-button").addEventListener("click", () => this.open());
    byId("alarm-close").addEventListener("click", () => this.dialog.close());
    byId("alarm-silence").addEventListener("click", () => this.silence());
    byId("alarm-sound").checked = this.kept.sound;
    byId("alarm-sound").addEventListener("change", () => {
      this.kept.sound = byId("alarm-sound").checked;
      saveChoices("alarms", this.kept);
      this.beep();
    });
    byId("alarm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.add();
    });
    // Browsers play sounds only after the user has done something on the page.
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => this.audio(), { once: true });
    setInterval(() => this.show(), TICK_MS);
    this.beeping = setInterval(() => this.sounding && this.beep(), BEEP_EACH_MS);
    this.load();
  }

  async load() {
    const report = await ask(this.path).catch(() => null);
    if (report) this.set(report);
  }

  set({ rules, raised, webhooks }) {
    Object.assign(this, { rules, raised, webhooks });
    this.show();
    if (this.dialog.open) this.list();
  }

  /** The raised alarms of the server's newest answer about the stream. */
  heard(raised) {
    this.heardAt = performance.now();
    if (JSON.stringify(raised) !== JSON.stringify(this.raised)) this.load();
    this.raised = raised;
    this.show();
  }

  /** Alarms of the server, and one of this page: without the server nobody else notices that the numbers are old. */
  get all() {
    const silent = (performance.now() - this.heardAt) / 1000;
    const limit = Math.min(...this.rules.map(({ stale_s: stale }) => stale ?? Infinity));
    const lost = silent > limit ? [{ name: "server", why: `does not answer for ${ageWords(silent)}`, since_unix_ms: 0 }] : [];
    return [...this.raised, ...lost];
  }

  show() {
    const { all } = this;
    // An alarm that ended and is raised again gives its sound again.
    for (const key of this.silenced) if (!all.some((one) => keyOf(one) === key)) this.silenced.delete(key);
    const text = all.map(({ name, why }) => sentence(`${titleOf(name)} ${visible(why).replace(/\bmonolayers?\b/g, "ML")}`)).join(" ");
    setText(byId("alarm-text"), text);
    setHidden(byId("alarm-banner"), all.length === 0);
    setText(byId("hud-alarm"), text);
    this.sounding = all.some((one) => !this.silenced.has(keyOf(one)));
    setHidden(byId("alarm-silence"), !this.sounding);
    setText(byId("alarms-button"), all.length ? `Alarms: ${all.length}` : "Alarms");
    byId("alarms-button").classList.toggle("raised", all.length > 0);
    if (this.sounding && !this.wasSounding) this.beep();
    this.wasSounding = this.sounding;
  }

  silence() {
    for (const one of this.all) this.silenced.add(keyOf(one));
    this.show();
  }

  // ---- sound

  audio() {
    this.context ??= window.AudioContext ? new AudioContext() : null;
    this.context?.resume().catch(() => {});
    return this.context;
  }

  /** Two short tones; nothing while the sound is off, or before the user has done something on the page. */
  beep() {
    if (!this.kept.sound || !this.context || this.context.state !== "running") return;
    const { context } = this;
    for (const [delay, pitch] of [[0, 880], [0.22, 660]]) {
      const [tone, volume] = [context.createOscillator(), context.createGain()];
      const at = context.currentTime + delay;
      tone.frequency.value = pitch;
      // Not at once to full volume: that would be a click.
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.25, at + 0.02);
      volume.gain.linearRampToValueAtTime(0, at + 0.18);
      tone.connect(volume).connect(context.destination);
      tone.start(at);
      tone.stop(at + 0.2);
    }
  }

  // ---- the dialog

  async open() {
    await this.load();
    const values = this.values();
    const names = Object.keys(TITLES).filter((name) => values[name]).concat(Object.keys(values).filter((name) => !TITLES[name] && typeof values[name]?.unit === "string"));
    const listed = names.length ? names : ["growth_rate_ml_s"];
    byId("alarm-name").replaceChildren(...listed.map((name) => el("option", { value: name }, `${titleOf(name)}${unitOf(values[name])}`)));
    setText(byId("alarm-problem"), "");
    setText(byId("alarm-hooks"), this.webhooks ? `The server also sends each alarm to ${this.webhooks} ${this.webhooks === 1 ? "address" : "addresses"}, whether a page is open or not.` : "The server sends alarms to nobody: its administrator can set addresses (alarm_webhooks_file).");
    this.list();
    this.dialog.showModal();
  }

  list() {
    const values = this.values();
    const rows = this.rules.map((rule) => {
      const remove = el("button", { type: "button", class: "small quiet", "aria-label": `Remove the alarm on ${titleOf(rule.name)}`, onclick: () => this.save(this.rules.filter(({ name }) => name !== rule.name)) }, "Remove");
      return el("li", {}, el("span", {}, el("strong", {}, titleOf(rule.name)), ` ${conditions(rule, values[rule.name])}`), mayWrite() ? remove : null);
    });
    byId("alarm-list").replaceChildren(...(rows.length ? rows : [el("li", { class: "muted" }, "No alarm is set on this stream.")]));
    setHidden(byId("alarm-fields"), !mayWrite());
  }

  async add() {
    const number = (id) => (byId(id).value.trim() === "" ? null : Number(byId(id).value.replace(",", ".")));
    const name = byId("alarm-name").value;
    const rule = { name, low: number("alarm-low"), high: number("alarm-high"), undetermined: byId("alarm-undetermined").checked, stale_s: number("alarm-stale") };
    const wrong = ["low", "high", "stale_s"].find((field) => Number.isNaN(rule[field]));
    if (wrong) setText(byId("alarm-problem"), "Enter numbers, such as 0.35, or leave a field empty.");
    else if (rule.low === null && rule.high === null && rule.stale_s === null && !rule.undetermined) setText(byId("alarm-problem"), "Choose when it is an alarm: a limit, undetermined, or stale.");
    else await this.save([...this.rules.filter((one) => one.name !== name), rule]);
  }

  async save(rules) {
    setText(byId("alarm-problem"), "");
    try {
      this.set(await ask(this.path, { method: "PUT", body: { rules } }));
      for (const id of ["alarm-low", "alarm-high", "alarm-stale"]) byId(id).value = "";
      byId("alarm-name").focus();
    } catch (error) {
      setText(byId("alarm-problem"), error.message);
    }
  }
}

function keyOf({ name, since_unix_ms: since }) {
  return `${name} ${since}`;
}

function titleOf(name) {
  if (name === "server") return "The server";
  if (name.startsWith("saturated:")) return `Saturated share of ${visible(name.slice(10))}`;
  return Object.hasOwn(TITLES, name) ? TITLES[name] : visible(name.replaceAll("_", " "));
}

function unitOf(value) {
  const unit = unitText(value?.unit ?? "");
  return unit ? `, ${unit}` : "";
}

function conditions({ low, high, undetermined, stale_s: stale }, value) {
  const unit = unitText(value?.unit ?? "");
  return [
    low === null ? null : `below ${low} ${unit}`.trim(),
    high === null ? null : `above ${high} ${unit}`.trim(),
    undetermined ? "undetermined" : null,
    stale === null ? null : `no new results for ${stale} s`,
  ].filter(Boolean).join(", ");
}
