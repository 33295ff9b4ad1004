// The tools, which turn pointer events on the photo into marks.

import { union } from "./mask.js";

const PREVIEW = 1000; // milliseconds
const CLICK = 4; // CSS pixels by which a pointer may move in a click

export class Tools {
  /** `pixels(photo)` returns its displayed RGBA; `onChange(photo)` is called after a mark. */
  constructor(viewer, { pixels, onChange, onSize, mayDraw }) {
    this.viewer = viewer;
    this.tool = "brush";
    this.size = 40; // pixels of the photo
    this.tolerance = 24; // levels of 255
    this.space = false; // true while the space key is held, to pan
    this.pixels = pixels;
    this.onChange = onChange;
    this.onSize = onSize;
    this.mayDraw = mayDraw;
    this.pointers = new Map();
    this.gesture = null;
    this.last = null; // end of the last stroke, with its photo
    this.hover = null;
    const { stage } = viewer;
    const listen = (name, handler, options) => stage.addEventListener(name, handler, options);
    listen("pointerdown", (event) => this.#down(event));
    listen("pointermove", (event) => this.#move(event));
    listen("pointerup", (event) => this.#up(event));
    listen("pointercancel", (event) => this.#up(event, true));
    listen("pointerleave", () => this.#hovering(null));
    listen("contextmenu", (event) => viewer.photo && event.preventDefault());
    listen("wheel", (event) => this.#wheel(event), { passive: false });
  }

  choose(tool) {
    this.tool = tool;
    this.#hovering(this.hover);
  }

  resize(size) {
    const { photo } = this.viewer;
    const most = photo ? Math.max(photo.width, photo.height) / 2 : 2000;
    this.size = Math.round(Math.min(most, Math.max(1, size)));
    this.#hovering(this.hover);
    this.onSize(this.size);
  }

  /** Makes the brush one step smaller (-1) or larger (1). */
  step(direction) {
    const next = this.size * (direction > 0 ? 1.2 : 1 / 1.2);
    this.resize(direction > 0 ? Math.max(this.size + 1, next) : Math.min(this.size - 1, next));
    this.preview();
  }

  /** Shows the brush's size for a moment if no pointer is over the photo. */
  preview() {
    if (this.hover || !this.viewer.photo) return;
    const { left, top, width, height } = this.viewer.stage.getBoundingClientRect();
    this.viewer.showRing({ clientX: left + width / 2, clientY: top + height / 2 }, this.size);
    clearTimeout(this.fading);
    this.fading = setTimeout(() => this.#hovering(this.hover), PREVIEW);
  }

  /** Abandons the current stroke; returns true if there was one. */
  abandon() {
    const { gesture } = this;
    this.gesture = null;
    this.viewer.showOutline([]);
    if (!gesture || gesture.pan) return false;
    gesture.photo.history.revert();
    this.viewer.overlay.update(gesture.box);
    return true;
  }

  #wheel(event) {
    if (!this.viewer.photo) return;
    event.preventDefault();
    const delta = event.deltaY * (event.deltaMode === 1 ? 30 : 1);
    if (event.altKey) {
      if (delta) this.step(-delta);
      return;
    }
    const { left, top } = this.viewer.stage.getBoundingClientRect();
    const factor = Math.exp(-delta * (event.ctrlKey ? 0.01 : 0.0015));
    this.viewer.zoom(factor, event.clientX - left, event.clientY - top);
    this.#hovering(event);
  }

  #down(event) {
    const { photo, stage } = this.viewer;
    // Elements above the photo handle their own clicks.
    if (!photo || event.target.closest("#work, #toasts")) return;
    stage.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 2) {
      // Two fingers move the photo; the first finger's stroke is abandoned.
      this.abandon();
      this.gesture = { pinch: true };
      return;
    }
    if (this.gesture || event.button > 2) return;
    if (event.button === 1 || this.space || this.tool === "hand") {
      event.preventDefault();
      this.gesture = { pan: true };
      stage.classList.add("panning");
      return;
    }
    if (!this.mayDraw(photo)) return;
    const point = this.viewer.toPhoto(event);
    const erases = event.altKey || event.button === 2 || this.tool === "eraser";
    const gesture = { photo, value: erases ? 0 : 1, points: [point], box: null };
    this.gesture = gesture;
    if (this.tool === "wand") {
      const [x, y] = point.map(Math.floor);
      const pixels = this.pixels(photo);
      gesture.box = photo.mask.flood(pixels, x, y, this.tolerance, gesture.value);
      this.viewer.overlay.update(gesture.box);
    } else if (this.tool === "brush" || this.tool === "eraser") {
      gesture.brush = this.size / 2;
      if (event.shiftKey) {
        gesture.down = point;
        gesture.from = this.last?.photo === photo ? this.last.point : point;
        this.#showStraight(gesture);
      } else {
        this.#stroke(gesture, [point, point]);
      }
    }
  }

  #move(event) {
    this.#hovering(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    this.pointers.set(event.pointerId, event);
    const { gesture } = this;
    if (gesture?.pinch) return this.#pinch(before, event);
    if (gesture?.pan) {
      this.viewer.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      return;
    }
    if (!gesture || this.tool === "wand") return;
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((e) => this.viewer.toPhoto(e));
    if (gesture.from) {
      const [x, y] = points.at(-1);
      const moved = Math.hypot(x - gesture.down[0], y - gesture.down[1]) * this.viewer.view.scale;
      // A click continues the last stroke, a drag begins where the button was pressed.
      if (moved > CLICK) gesture.from = gesture.down;
      gesture.points = [[x, y]];
      this.#showStraight(gesture);
    } else if (gesture.brush) {
      this.#stroke(gesture, [gesture.points.at(-1), ...points]);
    } else if (this.tool === "rectangle") {
      gesture.points = [gesture.points[0], points.at(-1)];
      const [[x0, y0], [x1, y1]] = gesture.points;
      this.viewer.showOutline([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
    } else {
      gesture.points.push(...points);
      this.viewer.showOutline(gesture.points);
    }
  }

  #up(event, cancelled = false) {
    this.pointers.delete(event.pointerId);
    const { gesture } = this;
    this.viewer.stage.classList.remove("panning");
    if (cancelled && gesture && !gesture.pinch) {
      this.abandon();
      return;
    }
    if (gesture?.pinch && this.pointers.size) return;
    this.gesture = null;
    this.viewer.showOutline([]);
    if (!gesture?.photo) return;
    const { photo, points, value } = gesture;
    const { mask } = photo;
    if (gesture.from) {
      this.#stroke(gesture, [gesture.from, points.at(-1)]);
    } else if (this.tool === "rectangle" && points.length > 1) {
      gesture.box = mask.rectangle(...points[0], ...points[1], value);
    } else if (this.tool === "lasso" && points.length > 2) {
      gesture.box = mask.polygon(points, value);
    }
    this.viewer.overlay.update(gesture.box);
    this.last = { photo, point: points.at(-1) };
    if (photo.history.commit(gesture.box)) this.onChange(photo);
  }

  /** Outlines a straight stroke, which is drawn when the pointer is released. */
  #showStraight({ from: [x0, y0], points, brush }) {
    const [x1, y1] = points.at(-1);
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    const [nx, ny] = [((y0 - y1) / length) * brush, ((x1 - x0) / length) * brush];
    this.viewer.showOutline([
      [x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny],
    ]);
  }

  #stroke(gesture, points) {
    const { mask } = gesture.photo;
    let box = null;
    for (let i = 0; i + 1 < points.length; i++) {
      box = union(box, mask.line(...points[i], ...points[i + 1], gesture.brush, gesture.value));
    }
    gesture.points = [points.at(-1)];
    gesture.box = union(gesture.box, box);
    this.viewer.overlay.update(box);
  }

  #pinch(before, event) {
    const [other] = [...this.pointers.values()].filter((p) => p.pointerId !== event.pointerId);
    if (!other) return;
    const { left, top } = this.viewer.stage.getBoundingClientRect();
    const distance = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
    const x = (event.clientX + other.clientX) / 2 - left;
    const y = (event.clientY + other.clientY) / 2 - top;
    this.viewer.pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
    if (distance(before) > 10) this.viewer.zoom(distance(event) / distance(before), x, y);
  }

  #hovering(event) {
    this.hover = event;
    const paints = this.tool === "brush" || this.tool === "eraser";
    const shown = event && paints && this.viewer.photo && event.pointerType !== "touch";
    this.viewer.showRing(shown && !this.space ? event : null, this.size);
  }
}
