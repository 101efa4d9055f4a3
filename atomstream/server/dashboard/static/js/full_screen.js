// Full screen: the picture with the rate in digits that can be read from three metres.
import { byId, isTyping, setHidden, setText } from "./dom.js";

const EACH_MS = 250;

/** The places of the page whose texts are shown below the picture in full screen. */
const SHOWN = { "hud-rate": "#rate-value", "hud-sigma": "#rate-sigma", "hud-unit": "#rate-unit", "hud-counted": '[data-name="counted"] .value', "hud-counted-what": '[data-name="counted"] dt', "hud-age": "#age" };

export class FullScreen {
  constructor() {
    this.panel = byId("picture-panel");
    const button = byId("full");
    setHidden(button, !document.fullscreenEnabled);
    button.addEventListener("click", () => this.toggle());
    document.addEventListener("fullscreenchange", () => this.changed());
    document.addEventListener("keydown", (event) => {
      if (event.key === "v" && !isTyping(event) && document.fullscreenEnabled) this.toggle();
    });
  }

  get on() {
    return document.fullscreenElement === this.panel;
  }

  toggle() {
    if (this.on) document.exitFullscreen();
    // A browser may refuse, for example in a frame; then the page stays as it is.
    else this.panel.requestFullscreen().catch(() => {});
  }

  changed() {
    clearInterval(this.timer);
    byId("full").setAttribute("aria-pressed", String(this.on));
    setHidden(byId("hud"), !this.on);
    if (!this.on) return;
    this.show();
    this.timer = setInterval(() => this.show(), EACH_MS);
  }

  show() {
    for (const [id, from] of Object.entries(SHOWN)) setText(byId(id), document.querySelector(from)?.textContent ?? "");
    byId("hud").classList.toggle("stale", byId("main").classList.contains("stale"));
    byId("hud").classList.toggle("none", byId("rate").classList.contains("none"));
  }
}
