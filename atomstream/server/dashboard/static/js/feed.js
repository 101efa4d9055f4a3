// The result feed: one WebSocket that reconnects and continues after the last message.
import { ask, socketUrl } from "./api.js";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 8000;
// The server sends a message at least every 5 s. A longer silence means that the connection is lost.
const SILENCE_MS = 16000;

export class Feed {
  /** `handlers`: one function per message type, `link(up)`, and `renew()` before each connection. */
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
      // HTTP first: it returns the current state, and a readable error (a WebSocket only fails).
      this.seq = await this.handlers.renew();
      this.connect();
    } catch (error) {
      if (error.status === 401) return;
      if (error.status === 404 || error.status === 410) {
        this.handlers.gone?.(error);
        return;
      }
      this.retryLater();
    }
  }

  connect() {
    const socket = new WebSocket(socketUrl(`${this.path}?after=${this.seq}&columns=none`), ["atomstream.json"]);
    this.socket = socket;
    socket.onopen = () => this.restartTimeout();
    socket.onmessage = (event) => {
      this.restartTimeout();
      this.dispatch(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      clearTimeout(this.silence);
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === 1000 && this.ended) this.watch();
      else this.retryLater();
    };
  }

  dispatch(message) {
    if (message.type === "hello") {
      this.wait = FIRST_WAIT_MS;
      this.ended = false;
      this.handlers.link?.(true);
    }
    if (typeof message.seq === "number" && message.type !== "hello" && message.type !== "heartbeat") this.seq = message.seq;
    if (message.type === "end") this.ended = true;
    this.handlers[message.type]?.(message);
  }

  restartTimeout() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket?.close(), SILENCE_MS);
  }

  retryLater() {
    this.handlers.link?.(false);
    // Random delays, so that the displays of a lab do not reconnect at the same time.
    this.retry = setTimeout(() => this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 1.7);
  }

  /** Polls an ended stream: it may continue (late chunks, a reanalysis). */
  watch() {
    this.handlers.link?.(true);
    this.retry = setTimeout(async () => {
      const status = await ask(this.path.replace(/feed$/, "analysis")).then((reply) => reply, () => null);
      if (status && (status.seq > this.seq || status.reanalysis)) this.open();
      else this.watch();
    }, 5000);
  }

  /** Reconnects at once, when the page became visible or the network is back. */
  now() {
    if (this.socket === null && !this.ended) this.open();
  }
}
