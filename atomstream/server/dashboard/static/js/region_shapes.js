// Geometry of regions in frame pixels. Boxes are {x, y, width, height} with x, y at their centre.

const SMALLEST = 3;

export function boxOf(name, [x0, y0], [x1, y1]) {
  return { type: "box", name, x: (x0 + x1) / 2, y: (y0 + y1) / 2, width: Math.abs(x1 - x0), height: Math.abs(y1 - y0), tracked: false };
}

export function lineOf(name, [x0, y0], [x1, y1]) {
  return { type: "line", name, x0, y0, x1, y1, width: 5 };
}

export function moved(region, [dx, dy]) {
  if (region.type === "line") return { ...region, x0: region.x0 + dx, x1: region.x1 + dx, y0: region.y0 + dy, y1: region.y1 + dy };
  return { ...region, x: region.x + dx, y: region.y + dy };
}

/** Resizes: `part` is the handle that moves; the opposite corner stays. */
export function resized(region, part, [dx, dy]) {
  if (region.type === "line") {
    return part === "start" ? { ...region, x0: region.x0 + dx, y0: region.y0 + dy } : { ...region, x1: region.x1 + dx, y1: region.y1 + dy };
  }
  const [left, top] = [region.x - region.width / 2, region.y - region.height / 2];
  const [right, bottom] = [left + region.width, top + region.height];
  const corners = part === "start" ? [[left + dx, top + dy], [right, bottom]] : [[left, top], [right + dx, bottom + dy]];
  const [[x0, y0], [x1, y1]] = corners;
  return { ...region, ...boxOf(region.name, [Math.min(x0, right - SMALLEST), Math.min(y0, bottom - SMALLEST)], [Math.max(x1, left + SMALLEST), Math.max(y1, top + SMALLEST)]), tracked: region.tracked };
}

/** Positions of the handles of a region: [x, y, part]. */
export function handles(region) {
  if (region.type === "line") return [[region.x0, region.y0, "start"], [region.x1, region.y1, "end"]];
  const [halfWidth, halfHeight] = [region.width / 2, region.height / 2];
  return [[region.x - halfWidth, region.y - halfHeight, "start"], [region.x + halfWidth, region.y + halfHeight, "end"]];
}

/** Rounds to whole pixels, inside the frame, with a minimum size. */
export function rounded(region, { width, height }) {
  const x = (value) => Math.round(Math.min(Math.max(value, 0), width - 1));
  const y = (value) => Math.round(Math.min(Math.max(value, 0), height - 1));
  if (region.type === "line") return { ...region, x0: x(region.x0), x1: x(region.x1), y0: y(region.y0), y1: y(region.y1) };
  const size = (value, limit) => Math.round(Math.min(Math.max(value, SMALLEST), limit));
  return { ...region, x: x(region.x), y: y(region.y), width: size(region.width, width), height: size(region.height, height) };
}
