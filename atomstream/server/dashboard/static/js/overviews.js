// What the list of streams shows beside the catalogue: small pictures, rate and thickness. Both are loaded after the list.
import { ask, askBytes } from "./api.js";
import { el } from "./dom.js";

const HEADER_BYTES = 32;
const AT_ONCE = 100;
const LIVE_MS = 15_000;

/** Summaries of the listed streams by id; those of ended streams are requested again only after a change. */
export class Summaries {
  constructor() {
    this.kept = new Map();
  }

  get(id) {
    return this.kept.get(id)?.summary ?? null;
  }

  /** Loads what is missing or has changed; returns whether anything is new. */
  async load(entries) {
    const wanted = entries.filter(({ data_id: id, last_updated: at }) => this.kept.get(id)?.at !== at);
    let isNew = false;
    for (let first = 0; first < wanted.length; first += AT_ONCE) {
      const some = wanted.slice(first, first + AT_ONCE);
      const found = await ask(`/dashboard/summaries?${some.map(({ data_id: id }) => `data_ids=${id}`).join("&")}`);
      for (const { data_id: id, last_updated: at } of some) {
        const summary = found[id] ?? null;
        isNew ||= JSON.stringify(this.get(id)) !== JSON.stringify(summary);
        this.kept.set(id, { at, summary });
      }
    }
    return isNew;
  }
}

/** Small pictures, loaded when their row comes into view. */
export class Thumbnails {
  constructor() {
    this.kept = new Map();
    this.observer = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) if (isIntersecting) this.load(target);
    }, { rootMargin: "200px" });
  }

  /** The canvas of a stream: the same one each time, so that a redrawn list does not flicker. */
  of({ data_id: id, pipeline_status: status, growth_length: length }) {
    let canvas = this.kept.get(id);
    if (!canvas) {
      canvas = el("canvas", { class: "thumbnail", width: "4", height: "3", "aria-hidden": "true" });
      canvas.dataset.stream = id;
      this.kept.set(id, canvas);
    }
    canvas.dataset.live = String(status === "stream_active");
    if (length > 0) this.observer.observe(canvas);
    return canvas;
  }

  async load(canvas) {
    const { stream, live } = canvas.dataset;
    const age = performance.now() - Number(canvas.dataset.loaded ?? -Infinity);
    if (canvas.dataset.loaded !== undefined && (live !== "true" || age < LIVE_MS)) return;
    canvas.dataset.loaded = String(performance.now());
    const reply = await askBytes(`/dashboard/streams/${stream}/thumbnail`).catch(() => null);
    if (reply) draw(canvas, reply.bytes);
  }
}

function draw(canvas, bytes) {
  const head = new DataView(bytes);
  const [frame, width, height] = [8, 12, 16].map((at) => head.getUint32(at, true));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { alpha: false });
  const image = context.createImageData(width, height);
  const pixels = new Uint8Array(bytes, HEADER_BYTES);
  new Uint32Array(image.data.buffer).forEach((_, k, words) => { words[k] = (0xff000000 | (pixels[k] * 0x10101)) >>> 0; });
  context.putImageData(image, 0, 0);
  canvas.dataset.frame = String(frame);
}
