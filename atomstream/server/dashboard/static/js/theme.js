// Dark for the room with the microscope off its light, light for the office.
import { byId } from "./dom.js";

export function setUpTheme(changed = () => {}) {
  const button = byId("theme");
  const show = () => { button.textContent = isLight() ? "Dark" : "Light"; };
  button.addEventListener("click", () => {
    const light = !isLight();
    if (light) document.documentElement.dataset.theme = "light";
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("atomstream-theme", light ? "light" : "dark"); } catch { /* not kept, then */ }
    show();
    changed();
  });
  show();
}

function isLight() {
  return document.documentElement.dataset.theme === "light";
}

/** A colour of the present theme: `colour("trace")`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
