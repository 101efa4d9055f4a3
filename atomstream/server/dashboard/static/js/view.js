// The stretch of time that the charts show: it follows the newest, or stays where the user put it.

const SHORTEST_S = 0.05;
const FIRST_S = 10;

export class View extends EventTarget {
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

  /** The stream reaches from `begin` to `end` (s). */
  reach(begin, end) {
    if (begin === this.begin && end === this.end) return;
    this.begin = begin;
    this.end = end;
    if (this.follow && !this.held) this.settle();
  }

  /** Stand still while the pointer drags: what comes meanwhile must not move the time under it. */
  hold(held) {
    if (this.held === held) return;
    this.held = held;
    if (!held && this.follow) this.settle();
  }

  /** Show the last `seconds` from now on; Infinity for all. */
  showLast(seconds) {
    this.last = seconds;
    this.follow = true;
    this.settle();
  }

  settle() {
    // A young stream fills the axis; its first seconds are drawn on ten, so that they do not race.
    const whole = Math.max(this.end - this.begin, FIRST_S);
    const span = Math.max(SHORTEST_S, Math.min(this.last, whole));
    this.to = Math.max(this.end, this.begin + span);
    this.from = this.to - span;
    this.changed();
  }

  /** Stay at this stretch. */
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
    if (follow) this.settle();
    else this.changed();
  }

  pan(share) {
    const step = share * (this.to - this.from);
    this.show(this.from + step, this.to + step);
  }

  /** Zoom by `factor` (under 1: in) around `at` (s; the newest end while following). */
  zoom(factor, at = this.follow ? this.to : (this.from + this.to) / 2) {
    if (this.follow && at >= this.to) {
      const longest = Math.max(this.end - this.begin, 1);
      this.last = Math.max(SHORTEST_S, (this.to - this.from) * factor);
      if (this.last >= longest) this.last = Infinity;
      this.settle();
    } else {
      this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
    }
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
