// The live picture: the next one is requested after the last was drawn, so a slow browser does not fall behind.
import { socketUrl } from "/dashboard/static/js/api.js";
import { byId, setHidden, setText } from "/dashboard/static/js/dom.js";

const HEADER_BYTES = 32;
const RETRY_MS = 1500;

export class LivePicture {
  constructor() {
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.colours = greys(false);
    this.count = 0;
    document.addEventListener("visibilitychange", () => this.next());
    byId("faint").addEventListener("click", () => {
      const faint = byId("faint").getAttribute("aria-pressed") !== "true";
      byId("faint").setAttribute("aria-pressed", String(faint));
      this.colours = greys(faint);
      if (this.shown) this.show(this.shown);
    });
    byId("full").addEventListener("click", () => byId("stage").requestFullscreen?.());
    this.open();
  }

  open() {
    const socket = new WebSocket(socketUrl("/record/pictures"));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.asked = false;
    socket.onopen = () => this.next();
    socket.onmessage = (event) => {
      this.asked = false;
      this.show(event.data);
      // On the next screen refresh: pictures that are not visible are not requested.
      requestAnimationFrame(() => this.next());
    };
    socket.onclose = () => setTimeout(() => this.open(), RETRY_MS);
  }

  next() {
    if (this.asked || document.hidden || this.socket.readyState !== WebSocket.OPEN) return;
    this.asked = true;
    this.socket.send("{}");
  }

  show(bytes) {
    this.shown = bytes;
    const head = new DataView(bytes);
    const [time, frame] = [head.getFloat64(0, true), head.getUint32(8, true)];
    const [width, height, fullWidth, fullHeight] = [12, 16, 20, 24].map((at) => head.getUint32(at, true));
    if (this.image?.width !== width || this.image?.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
      byId("stage").style.aspectRatio = `${fullWidth} / ${fullHeight}`;
    }
    const pixels = new Uint8Array(bytes, HEADER_BYTES);
    const image = new Uint32Array(this.image.data.buffer);
    for (let k = 0; k < pixels.length; k++) image[k] = this.colours[pixels[k]];
    this.context.putImageData(this.image, 0, 0);
    this.count += 1;
    setHidden(byId("stage-empty"), true);
    setText(byId("picture-when"), `${new Date(1000 * time).toLocaleTimeString("en-GB")} · frame ${frame.toLocaleString("en-GB").replaceAll(",", "\u202f")}`);
    this.canvas.dataset.frame = String(frame);
    this.canvas.dataset.pictures = String(this.count);
  }
}

/** Colour table of the grey levels (RGBA words); saturated pixels are red. */
function greys(faint) {
  const colours = new Uint32Array(256);
  for (let level = 0; level < 256; level++) {
    const grey = Math.round(255 * (level / 255) ** (faint ? 0.5 : 1));
    colours[level] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  colours[255] = 0xff4a5aff;
  return colours;
}
