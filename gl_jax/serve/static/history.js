// The unlimited undo history of one photo. A mark is kept as the pixels that it changed,
// eight to a byte; a completion as its step.

import { pack } from "./mask.js";

export class History {
  /** `steps` are the photo's completions in order; undo removes them, redo adds them. */
  constructor(mask, steps) {
    this.mask = mask;
    this.steps = steps;
    this.committed = mask.bits.slice();
    this.done = steps.map((step) => ({ step, before: step.before }));
    this.undone = [];
  }

  /** Adds the mask's changes inside the box as one entry; returns true if there are any. */
  commit(box) {
    if (!box) return false;
    const [left, top, right, bottom] = box;
    const [w, h] = [right - left, bottom - top];
    if (w <= 0 || h <= 0) return false;
    const { width, bits } = this.mask;
    let some = 0;
    let row = 0;
    let column = -1;
    const changed = pack(w * h, () => {
      if (++column === w) {
        column = 0;
        row++;
      }
      const i = (top + row) * width + left + column;
      const differs = bits[i] ^ this.committed[i];
      some |= differs;
      this.committed[i] = bits[i];
      return differs;
    });
    if (some) this.#push({ box, changed });
    return Boolean(some);
  }

  /** Reverts changes that are not committed. */
  revert() {
    this.mask.bits.set(this.committed);
  }

  /** Adds a completion and clears the mask. */
  complete(step) {
    const before = this.mask.packed();
    step.before = before;
    this.steps.push(step);
    this.#setMask(null);
    this.#push({ step, before });
  }

  undo() {
    const entry = this.done.pop();
    if (!entry) return null;
    this.undone.push(entry);
    if (entry.changed) return this.#flip(entry);
    this.steps.pop();
    return this.#setMask(entry.before);
  }

  redo() {
    const entry = this.undone.pop();
    if (!entry) return null;
    this.done.push(entry);
    if (entry.changed) return this.#flip(entry);
    this.steps.push(entry.step);
    return this.#setMask(null);
  }

  #push(entry) {
    this.done.push(entry);
    this.undone = [];
  }

  #flip({ box, changed }) {
    const [left, top, right, bottom] = box;
    const { width, bits } = this.mask;
    let i = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++, i++) {
        if ((changed[i >> 3] >> (7 - (i & 7))) & 1) {
          bits[y * width + x] ^= 1;
          this.committed[y * width + x] ^= 1;
        }
      }
    }
    return box;
  }

  #setMask(packed) {
    const box = this.mask.load(packed);
    this.committed.set(this.mask.bits);
    return box;
  }
}
