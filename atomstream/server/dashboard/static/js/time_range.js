// The time range of the charts: it follows the newest data or stays where the user set it.

const SHORTEST_S = 0.05;
const FIRST_S = 10;

export class TimeRange extends EventTarget {
  constructor() {
    super();
    this.begin = 0;
    this.end = 0;
    this.last = 120;
    this.follow = true;
    this.held = false;
    this.from = 0;
    this.to = this.last;
  }

  /** Sets the extent of the stream: `begin` to `end` in s. */
  reach(begin, end) {
    if (begin === this.begin && end === this.end) return;
    this.begin = begin;
    this.end = end;
    if (this.follow && !this.held) this.followEnd();
  }

  /** Stops following while the pointer drags, so that new data does not move the axis. */
  hold(held) {
    if (this.held === held) return;
    this.held = held;
    if (!held && this.follow) this.followEnd();
  }

  /** Follows the newest data and shows the last `seconds`; Infinity shows all. */
  showLast(seconds) {
    this.last = seconds;
    this.follow = true;
    this.followEnd();
  }

  followEnd() {
    // A short stream fills the axis, which is at least ten seconds long.
    const whole = Math.max(this.end - this.begin, FIRST_S);
    const span = Math.max(SHORTEST_S, Math.min(this.last, whole));
    this.to = Math.max(this.end, this.begin + span);
    this.from = this.to - span;
    this.changed();
  }

  /** Shows this range and stops following. */
  show(from, to) {
    const span = Math.max(SHORTEST_S, Math.min(to - from, Math.max(this.end - this.begin, 1)));
    this.from = Math.min(Math.max(from, this.begin), Math.max(this.begin, this.end - span));
    this.to = this.from + span;
    this.follow = false;
    this.changed();
  }

  setFollow(follow) {
    if (follow) this.last = Number.isFinite(this.last) && this.to - this.from < this.end - this.begin ? this.to - this.from : this.last;
    this.follow = follow;
    if (follow) this.followEnd();
    else this.changed();
  }

  pan(share) {
    const step = share * (this.to - this.from);
    this.show(this.from + step, this.to + step);
  }

  /** Zooms by `factor` (below 1: in) around the time `at` in s (default: the newest end while following). */
  zoom(factor, at = this.follow ? this.to : (this.from + this.to) / 2) {
    if (this.follow && at >= this.to) {
      const longest = Math.max(this.end - this.begin, 1);
      this.last = Math.max(SHORTEST_S, (this.to - this.from) * factor);
      if (this.last >= longest) this.last = Infinity;
      this.followEnd();
    } else {
      this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
    }
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
