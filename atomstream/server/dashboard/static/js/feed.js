// The feed of results: one WebSocket that comes back by itself, from where it was broken.
import { ask, socketUrl } from "./api.js";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 8000;
// The server says something each 5 s; a connection that is silent for longer is dead, whatever TCP thinks.
const SILENCE_MS = 16000;

export class Feed {
  /** `handlers`: one function for each type of message, `link(up)`, and `renew()` before each connection. */
  constructor(dataId, handlers) {
    this.path = `/rheed/stream/${dataId}/feed`;
    this.handlers = handlers;
    this.seq = -1;
    this.wait = FIRST_WAIT_MS;
    this.ended = false;
  }

  async open() {
    clearTimeout(this.retry);
    try {
      // By HTTP first: it brings the present state, and says why where there is none (a WebSocket only says "no").
      this.seq = await this.handlers.renew();
      this.connect();
    } catch (error) {
      if (error.status === 401) return;
      if (error.status === 404) {
        this.handlers.gone?.(error);
        return;
      }
      this.later();
    }
  }

  connect() {
    const socket = new WebSocket(socketUrl(`${this.path}?after=${this.seq}&columns=none`), ["atomstream.json"]);
    this.socket = socket;
    socket.onopen = () => this.heard();
    socket.onmessage = (event) => {
      this.heard();
      this.take(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      clearTimeout(this.silence);
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === 1000 && this.ended) this.watch();
      else this.later();
    };
  }

  take(message) {
    if (message.type === "hello") {
      this.wait = FIRST_WAIT_MS;
      this.ended = false;
      this.handlers.link?.(true);
    }
    if (typeof message.seq === "number" && message.type !== "hello" && message.type !== "heartbeat") this.seq = message.seq;
    if (message.type === "end") this.ended = true;
    this.handlers[message.type]?.(message);
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket?.close(), SILENCE_MS);
  }

  later() {
    this.handlers.link?.(false);
    // Spread out, so that all the displays of a lab do not come back in the same instant.
    this.retry = setTimeout(() => this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 1.7);
  }

  /** Ended streams may go on (late chunks, another analysis): look now and then. */
  watch() {
    this.handlers.link?.(true);
    this.retry = setTimeout(async () => {
      const status = await ask(this.path.replace(/feed$/, "analysis")).then((reply) => reply, () => null);
      if (status && (status.seq > this.seq || status.reanalysis)) this.open();
      else this.watch();
    }, 5000);
  }

  /** Try again at once: the page came back to the front, or the network did. */
  now() {
    if (this.socket === null && !this.ended) this.open();
  }
}
