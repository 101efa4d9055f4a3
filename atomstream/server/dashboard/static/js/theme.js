// Dark theme for the lab, light theme for the office.
import { byId } from "./dom.js";

export function setUpTheme(changed = () => {}) {
  const button = byId("theme");
  const show = () => { button.textContent = isLight() ? "Dark" : "Light"; };
  button.addEventListener("click", () => {
    const light = !isLight();
    if (light) document.documentElement.dataset.theme = "light";
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("atomstream-theme", light ? "light" : "dark"); } catch { /* storage is disabled: the choice is not kept */ }
    show();
    changed();
  });
  show();
}

function isLight() {
  return document.documentElement.dataset.theme === "light";
}

/** A colour of the current theme: `colour("trace")`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
