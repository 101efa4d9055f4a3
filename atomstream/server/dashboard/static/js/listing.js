// Lines of a list or rows of a table that come, change and go one by one: what stays keeps its focus and its place.

export class Listing {
  constructor(parent) {
    this.parent = parent;
    this.made = new Map();
  }

  /** Shows these `[key, told, make]` in this order; a line is made anew only where `told` is not what it was. */
  show(lines) {
    const before = this.made;
    this.made = new Map(lines.map(([key, told, make]) => [key, before.get(key)?.told === told ? before.get(key) : { told, element: make() }]));
    const held = [...before].find(([, { element }]) => element.contains(document.activeElement))?.[0];
    for (const [key, { element }] of before) if (this.made.get(key)?.element !== element) element.remove();
    // Only what is new is put in: an element that is moved loses the focus.
    let next = this.parent.firstChild;
    for (const { element } of this.made.values()) {
      if (element === next) next = next.nextSibling;
      else this.parent.insertBefore(element, next);
    }
    const now = this.made.get(held)?.element;
    if (now && now !== before.get(held).element) now.querySelector("button")?.focus({ preventScroll: true });
  }
}
