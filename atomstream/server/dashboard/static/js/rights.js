// What the person at this page may do. Controls with `data-needs` are hidden by css/base.css.

/** Sets the right that the server stated: `read`, `write` or `admin`. */
export function setRight(right) {
  document.body.dataset.right = right;
}

/** True if the server accepts changes of marks, regions and calibration. */
export function mayWrite() {
  return ["write", "admin"].includes(document.body.dataset.right);
}
