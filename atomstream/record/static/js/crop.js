// Drag a rectangle on the picture: it becomes the crop in the camera's dialog.
import { byId, svg } from "/dashboard/static/js/dom.js";

const SMALLEST_PX = 8;

/** `size()` is the frame's width and height in pixels, null if it can't be cropped; `chosen(x, y, width, height)` gets the rectangle. */
export function setUpCrop(size, chosen) {
  const stage = byId("stage");
  const overlay = svg("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
  stage.append(overlay);
  let start = null;

  const place = (event) => {
    const { width, height } = size();
    const box = stage.getBoundingClientRect();
    const at = (value, length, pixels) => Math.round(Math.min(1, Math.max(0, value / length)) * pixels);
    return [at(event.clientX - box.left, box.width, width), at(event.clientY - box.top, box.height, height)];
  };
  const rectangle = (event) => {
    const [x, y] = place(event);
    return [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || size() === null || document.fullscreenElement) return;
    start = place(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (start === null || size() === null) return;
    const [x, y, width, height] = rectangle(event);
    overlay.setAttribute("viewBox", `0 0 ${size().width} ${size().height}`);
    overlay.replaceChildren(svg("rect", { class: "shape", x, y, width, height }));
  });
  const end = (event) => {
    if (start === null) return;
    const box = size() === null || event.type === "pointercancel" ? [0, 0, 0, 0] : rectangle(event);
    start = null;
    overlay.replaceChildren();
    if (box[2] >= SMALLEST_PX && box[3] >= SMALLEST_PX) chosen(...box);
  };
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
}
