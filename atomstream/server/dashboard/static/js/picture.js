// The live image: the next one is requested after the last was drawn, so a slow browser does not fall behind.
import { askBytes, socketUrl } from "./api.js";
import { byId, setText, setHidden } from "./dom.js";
import { duration } from "./format.js";

const HEADER_BYTES = 32;
const DELETED = "the stream was deleted";
const RETRY_MS = 1500;

export class Picture extends EventTarget {
  constructor(dataId, look, dark) {
    super();
    this.dataId = dataId;
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.size = { width: 640, height: 480 };
    this.angle = null;
    this.frozen = null;
    this.count = 0;
    this.look = look;
    this.dark = dark;
    for (const part of [look, dark]) part.addEventListener("change", () => this.shown && this.show(this.shown));
    document.addEventListener("visibilitychange", () => this.next());
    byId("to-live").addEventListener("click", () => this.freeze(null));
  }

  open() {
    clearTimeout(this.retry);
    const socket = new WebSocket(socketUrl(`/dashboard/streams/${this.dataId}/pictures`));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.asked = false;
    socket.onopen = () => this.next();
    socket.onmessage = (event) => {
      this.asked = false;
      this.live = event.data;
      if (this.frozen === null) this.show(event.data);
      // On the next screen refresh: images that are not visible are not requested.
      requestAnimationFrame(() => this.next());
    };
    socket.onclose = ({ reason }) => {
      if (this.socket === socket && reason !== DELETED) this.retry = setTimeout(() => this.open(), RETRY_MS);
    };
  }

  next() {
    if (this.asked || document.hidden || this.socket?.readyState !== WebSocket.OPEN) return;
    this.asked = true;
    this.socket.send(JSON.stringify(this.angle === null ? { root: true } : { root: true, angle_deg: this.angle }));
  }

  /** Shows a rotating sample at one azimuth only; null shows all frames. */
  setAngle(angle) {
    this.angle = angle;
    // A new request replaces one that the server has not answered yet.
    this.asked = false;
    this.next();
  }

  /** Shows the image of an earlier time (s); null returns to the newest. */
  async freeze(time) {
    this.frozen = time;
    setHidden(byId("to-live"), time === null);
    if (time === null) {
      if (this.live) this.show(this.live);
      return;
    }
    const { bytes } = await askBytes(`/dashboard/streams/${this.dataId}/picture?root=1&time=${time}`);
    if (this.frozen === time) this.show(bytes);
  }

  show(bytes) {
    this.shown = bytes;
    const head = new DataView(bytes);
    const [time, frame] = [head.getFloat64(0, true), head.getUint32(8, true)];
    const [width, height, fullWidth, fullHeight, level] = [12, 16, 20, 24, 28].map((at) => head.getUint32(at, true));
    this.fit(width, height, fullWidth, fullHeight);
    const pixels = new Uint8Array(bytes, HEADER_BYTES);
    this.dark.add(pixels, width, height, level, this.frozen !== null);
    const dark = this.dark.fits(width, height);
    this.paint(pixels, new Uint32Array(this.image.data.buffer), level, dark);
    this.context.putImageData(this.image, 0, 0);
    this.count += 1;
    setHidden(byId("stage-empty"), true);
    const past = this.frozen === null ? "" : " (past)";
    setText(byId("picture-when"), `${Number.isFinite(time) ? duration(time) : "–"} · frame ${frame.toLocaleString("en-GB").replaceAll(",", "\u202f")}${past}${dark ? " − dark" : ""}`);
    this.canvas.dataset.frame = String(frame);
    this.canvas.dataset.pictures = String(this.count);
  }

  /** Pixels of cameras with more than 8 bits come as square roots, which keep the faint parts. */
  paint(pixels, image, level, dark) {
    if (dark) {
      this.dark.paint(pixels, image, level, this.look.fine());
      return;
    }
    const colours = this.look.coded(level > 255);
    for (let k = 0; k < pixels.length; k++) image[k] = colours[pixels[k]];
  }

  fit(width, height, fullWidth, fullHeight) {
    if (this.image?.width === width && this.image.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.image = this.context.createImageData(width, height);
    this.size = { width: fullWidth, height: fullHeight };
    byId("stage").style.aspectRatio = `${fullWidth} / ${fullHeight}`;
    byId("stage").style.setProperty("--ratio", String(fullWidth / fullHeight));
    this.dispatchEvent(new Event("size"));
  }
}
