// Creating elements. All text is set as text, never as HTML, because names are free text of users.

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

/** Sets the text only if it changed: screen readers read every write aloud. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Hides or shows an element. If it had the focus, the focus moves to the main part of the page. */
export function setHidden(element, hidden) {
  const held = hidden && element.contains(document.activeElement);
  element.hidden = hidden;
  if (held) byId("main")?.focus({ preventScroll: true });
}

/** Makes a button open and close a drawer; Escape closes it and returns the focus to the button. */
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

/** True if a key press belongs to a text field, a dialog or a shortcut of the browser. */
export function isTyping(event) {
  const target = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || target.isContentEditable
    || ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName) || document.querySelector("dialog[open]") !== null;
}
