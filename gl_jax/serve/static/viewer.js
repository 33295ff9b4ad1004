// The displayed photo: pan, zoom, the layers above it, the comparison slider.
// All layers are in one element, which the browser's compositor moves and scales.

import { Overlay } from "./overlay.js";

const CLOSEST = 32; // largest zoom, in CSS pixels per pixel of the photo
const SETTLED = 250; // milliseconds from the last movement to the sharp redraw

export class Viewer {
  constructor(stage) {
    const part = (name) => stage.querySelector(`#${name}`);
    this.stage = stage;
    this.world = part("world");
    this.base = part("base");
    this.patches = part("patches");
    this.marks = part("marks");
    this.shape = part("shape");
    this.slider = part("slider");
    this.ring = part("ring");
    this.overlay = new Overlay(this.marks);
    this.view = { x: 0, y: 0, scale: 1 };
    this.split = 0.5;
    this.fitted = true;
    this.photo = null;
    this.onZoom = () => {};
    new ResizeObserver(() => (this.fitted ? this.fit() : this.#apply())).observe(stage);
    this.#slide();
  }

  /** Shows a photo; null shows nothing. */
  show(photo) {
    this.photo = photo;
    this.world.hidden = !photo;
    this.overlay.show(photo?.mask ?? null);
    if (!photo) return;
    this.base.src = photo.url;
    for (const element of [this.world, this.base]) {
      element.style.width = `${photo.width}px`;
      element.style.height = `${photo.height}px`;
    }
    this.shape.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    this.showSteps();
    this.fit();
  }

  /** Shows the completions of the photo. */
  showSteps() {
    const images = (this.photo?.steps ?? []).map((step) => {
      const { url, box } = step.candidates[step.chosen];
      const image = new Image();
      image.src = url;
      image.alt = "";
      image.draggable = false;
      image.style.left = `${box[0]}px`;
      image.style.top = `${box[1]}px`;
      image.style.width = `${box[2]}px`;
      image.style.height = `${box[3]}px`;
      return image;
    });
    this.patches.replaceChildren(...images);
    this.#apply();
  }

  fit() {
    if (!this.photo) return;
    const { clientWidth, clientHeight } = this.stage;
    const margin = Math.min(24, clientWidth / 30);
    const { width, height } = this.photo;
    const scale = Math.min(
      (clientWidth - 2 * margin) / width, (clientHeight - 2 * margin) / height,
      8 / devicePixelRatio,
    );
    this.#center(scale);
    this.fitted = true;
  }

  /** Shows a pixel of the photo as `times` pixels of the screen. */
  actualSize(times = 1) {
    this.zoom(times / devicePixelRatio / this.view.scale);
  }

  /** Zooms by a factor around a point of the stage, by default its middle. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.photo) return;
    const { view } = this;
    const side = Math.max(this.photo.width, this.photo.height);
    const least = Math.min(1, 40 / side);
    const scale = Math.min(CLOSEST, Math.max(least, view.scale * factor));
    const ratio = scale / view.scale;
    this.view = { x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio, scale };
    this.fitted = false;
    this.#moving();
  }

  pan(dx, dy) {
    if (!this.photo) return;
    this.view.x += dx;
    this.view.y += dy;
    this.fitted = false;
    this.#moving();
  }

  /** Returns a pointer's position in pixels of the photo, with fractions. */
  toPhoto(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    const { x, y, scale } = this.view;
    return [(event.clientX - left - x) / scale, (event.clientY - top - y) / scale];
  }

  /** Shows the brush's ring at a pointer, null hides it; `diameter` in the photo's pixels. */
  showRing(event, diameter) {
    this.ring.hidden = !event;
    if (!event) return;
    const { left, top } = this.stage.getBoundingClientRect();
    const side = Math.max(3, diameter * this.view.scale);
    const [x, y] = [event.clientX - left - side / 2, event.clientY - top - side / 2];
    this.ring.style.width = this.ring.style.height = `${side}px`;
    this.ring.style.transform = `translate(${x}px, ${y}px)`;
  }

  /** Shows an unfinished outline: points [x, y] in pixels of the photo. */
  showOutline(points) {
    this.shape.querySelector("polygon").setAttribute(
      "points", points.map(([x, y]) => `${x},${y}`).join(" "),
    );
  }

  showOriginal(on) {
    this.stage.classList.toggle("original", on);
  }

  get comparing() {
    return !this.slider.hidden;
  }

  compare(on) {
    this.slider.hidden = !on;
    this.#apply();
  }

  #center(scale) {
    const { clientWidth, clientHeight } = this.stage;
    this.view = {
      scale,
      x: (clientWidth - this.photo.width * scale) / 2,
      y: (clientHeight - this.photo.height * scale) / 2,
    };
    this.#moving();
  }

  /** Lets the compositor move the layers; redraws them sharply after the movement. */
  #moving() {
    this.world.classList.add("moving");
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.world.classList.remove("moving"), SETTLED);
    this.#apply();
  }

  #apply() {
    const { x, y, scale } = this.view;
    this.world.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.world.classList.toggle("close", scale * devicePixelRatio >= 3);
    this.shape.style.strokeWidth = `${1.5 / scale}px`;
    const at = this.split * this.stage.clientWidth;
    this.slider.style.transform = `translateX(${at}px)`;
    this.slider.setAttribute("aria-valuenow", Math.round(100 * this.split));
    this.patches.style.clipPath = this.comparing
      ? `inset(0 0 0 ${Math.max(0, (at - x) / scale)}px)`
      : "";
    this.onZoom(scale * devicePixelRatio);
  }

  #slide() {
    const move = (share) => {
      this.split = Math.min(1, Math.max(0, share));
      this.#apply();
    };
    this.slider.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      this.slider.setPointerCapture(event.pointerId);
    });
    this.slider.addEventListener("pointermove", (event) => {
      event.stopPropagation();
      if (!this.slider.hasPointerCapture(event.pointerId)) return;
      const { left, width } = this.stage.getBoundingClientRect();
      move((event.clientX - left) / width);
    });
    this.slider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      move(this.split + step);
    });
  }
}
