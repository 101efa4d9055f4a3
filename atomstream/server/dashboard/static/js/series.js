// Data of the charts: requests the shown time range, with about one point per pixel.
import { ask } from "./api.js";

// Shortest time between two requests while results arrive; a past range is requested once.
const PERIOD_MS = 500;
// Delay after a failed request.
const RETRY_MS = 1500;

export class Series extends EventTarget {
  constructor(dataId, view) {
    super();
    this.path = `/dashboard/streams/${dataId}/series`;
    this.view = view;
    this.names = [];
    this.points = 800;
    this.data = { t: [], series: {}, bucket: 1 };
    this.askedAt = 0;
    view.addEventListener("change", () => this.requestSoon());
  }

  setNames(names) {
    this.names = [...new Set(names)];
    this.requestSoon();
  }

  setPoints(points) {
    const wanted = Math.min(4000, Math.max(100, Math.round(points)));
    if (Math.abs(wanted - this.points) < 20) return;
    this.points = wanted;
    this.requestSoon();
  }

  /** Schedules a request for new data. */
  requestSoon() {
    this.wanted = true;
    if (this.running || this.timer) return;
    const wait = Math.max(0, this.askedAt + (this.view.follow ? PERIOD_MS : 60) - performance.now());
    this.timer = setTimeout(() => this.load(), wait);
  }

  async load() {
    this.timer = undefined;
    if (!this.wanted || document.hidden) return;
    this.wanted = false;
    this.running = true;
    this.askedAt = performance.now();
    try {
      this.data = await ask(`${this.path}?${this.query()}`);
      this.failed = false;
      if (this.data.end_s !== null) this.view.reach(this.data.begin_s ?? 0, this.data.end_s);
      this.dispatchEvent(new Event("data"));
    } catch (error) {
      this.failed = error.status !== 401;
      if (error.status === 0 || error.status >= 500) this.retryLater();
    } finally {
      this.running = false;
      if (this.wanted) this.requestSoon();
    }
  }

  retryLater() {
    this.wanted = true;
    this.timer = setTimeout(() => this.load(), RETRY_MS);
  }

  query() {
    return rangeQuery(this.view, this.names, this.points);
  }
}

/** The query of these results over the range that the charts show. */
export function rangeQuery(view, names, points) {
  const query = new URLSearchParams(names.map((name) => ["name", name]));
  query.set("points", String(points));
  if (view.follow && Number.isFinite(view.last)) query.set("last", String(view.last));
  else if (!view.follow) {
    query.set("from", String(view.from));
    query.set("to", String(view.to));
  }
  return query;
}
