// Making elements. Text goes in as text alone: names are strangers' words, and markup in them is just letters.

export function byId(id) {
  return document.getElementById(id);
}

/** `el("dd", { class: "num" }, "0.4", el("span", {}, "ML/s"))`; `on…` properties are listeners. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets text only where it changed: screen readers repeat what is written again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Hides or shows; what is hidden gives the focus to the page's main part, else the next Tab would begin at the top. */
export function setHidden(element, hidden) {
  const held = hidden && element.contains(document.activeElement);
  element.hidden = hidden;
  if (held) byId("main")?.focus({ preventScroll: true });
}

/** Makes a button open and close what it controls; Escape closes it and gives the focus back. */
export function setUpDrawer(button, drawer, opened = () => {}) {
  const show = (open) => {
    drawer.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) opened();
  };
  button.addEventListener("click", () => show(drawer.hidden));
  for (const part of [button, drawer]) {
    part.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      show(false);
      button.focus();
    });
  }
}

/** Whether a key press belongs to what is being typed, or to the browser. */
export function isTyping(event) {
  const target = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || target.isContentEditable
    || ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName) || document.querySelector("dialog[open]") !== null;
}
