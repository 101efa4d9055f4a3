// A list or table whose rows are updated by key: unchanged rows keep their element and the focus.

export class KeyedList {
  constructor(parent) {
    this.parent = parent;
    this.rows = new Map();
  }

  /** Shows rows `[key, content, make]` in this order; `make()` is called only if `content` changed. */
  show(lines) {
    const before = this.rows;
    this.rows = new Map(lines.map(([key, content, make]) => [key, before.get(key)?.content === content ? before.get(key) : { content, element: make() }]));
    const focused = [...before].find(([, { element }]) => element.contains(document.activeElement))?.[0];
    for (const [key, { element }] of before) if (this.rows.get(key)?.element !== element) element.remove();
    // Only new elements are inserted: a moved element would lose the focus.
    let next = this.parent.firstChild;
    for (const { element } of this.rows.values()) {
      if (element === next) next = next.nextSibling;
      else this.parent.insertBefore(element, next);
    }
    const now = this.rows.get(focused)?.element;
    if (now && now !== before.get(focused).element) now.querySelector("button")?.focus({ preventScroll: true });
  }
}
