// The mask: one byte per pixel, 1 = missing. Drawing needs no canvas and has hard edges;
// it returns the changed box, [left, top, right, bottom], with right and bottom excluded.

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.bits = new Uint8Array(width * height);
  }

  /** Sets all pixels within `radius` of the line between two points. */
  line(x0, y0, x1, y1, radius, value) {
    const r = Math.max(radius, 0.71); // so that a point anywhere in a pixel marks it
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    const [nx, ny] = [(-(y1 - y0) / length) * r, ((x1 - x0) / length) * r];
    const sides = [
      [x0 + nx, y0 + ny, x1 + nx, y1 + ny],
      [x0 - nx, y0 - ny, x1 - nx, y1 - ny],
    ];
    const box = this.#clipped(
      Math.min(x0, x1) - r, Math.min(y0, y1) - r,
      Math.max(x0, x1) + r, Math.max(y0, y1) + r,
    );
    for (let y = box[1]; y < box[3]; y++) {
      const center = y + 0.5;
      let low = Infinity;
      let high = -Infinity;
      for (const [cx, cy] of [[x0, y0], [x1, y1]]) {
        const square = r * r - (center - cy) ** 2;
        if (square < 0) continue;
        const half = Math.sqrt(square);
        low = Math.min(low, cx - half);
        high = Math.max(high, cx + half);
      }
      for (const [ax, ay, bx, by] of sides) {
        if (ay === by || (center - ay) * (center - by) > 0) continue;
        const x = ax + ((center - ay) * (bx - ax)) / (by - ay);
        low = Math.min(low, x);
        high = Math.max(high, x);
      }
      this.#span(y, low, high, value);
    }
    return box;
  }

  rectangle(x0, y0, x1, y1, value) {
    const box = this.#clipped(
      Math.round(Math.min(x0, x1)), Math.round(Math.min(y0, y1)),
      Math.round(Math.max(x0, x1)), Math.round(Math.max(y0, y1)),
    );
    for (let y = box[1]; y < box[3]; y++) {
      this.bits.fill(value, y * this.width + box[0], y * this.width + box[2]);
    }
    return box;
  }

  /** Fills the polygon with corners at the points, [x, y] each. */
  polygon(points, value) {
    const xs = points.map(([x]) => x);
    const ys = points.map(([, y]) => y);
    const box = this.#clipped(least(xs), least(ys), most(xs), most(ys));
    for (let y = box[1]; y < box[3]; y++) {
      const center = y + 0.5;
      const crossings = [];
      points.forEach(([ax, ay], i) => {
        const [bx, by] = points[(i + 1) % points.length];
        if (ay > center !== by > center) {
          crossings.push(ax + ((center - ay) * (bx - ax)) / (by - ay));
        }
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        this.#span(y, crossings[i], crossings[i + 1], value);
      }
    }
    return box;
  }

  /** Sets the connected pixels around a point whose colour is similar to the point's.
   *  `pixels` are RGBA; no channel differs by more than `tolerance` levels. */
  flood(pixels, x, y, tolerance, value) {
    const { width, height, bits } = this;
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const start = 4 * (y * width + x);
    const [r, g, b] = pixels.subarray(start, start + 3);
    const alike = (i) =>
      Math.abs(pixels[4 * i] - r) <= tolerance &&
      Math.abs(pixels[4 * i + 1] - g) <= tolerance &&
      Math.abs(pixels[4 * i + 2] - b) <= tolerance;
    const seen = new Uint8Array(width * height);
    const waiting = [y * width + x];
    let [left, top, right, bottom] = [x, y, x, y];
    while (waiting.length) {
      const seed = waiting.pop();
      if (seen[seed]) continue;
      const row = Math.floor(seed / width);
      let first = seed;
      let last = seed;
      while (first > row * width && !seen[first - 1] && alike(first - 1)) first--;
      while (last + 1 < (row + 1) * width && !seen[last + 1] && alike(last + 1)) last++;
      seen.fill(1, first, last + 1);
      bits.fill(value, first, last + 1);
      left = Math.min(left, first - row * width);
      right = Math.max(right, last - row * width);
      top = Math.min(top, row);
      bottom = Math.max(bottom, row);
      for (const next of [row - 1, row + 1]) {
        if (next < 0 || next >= height) continue;
        let inside = false;
        for (let i = first; i <= last; i++) {
          const at = i + (next - row) * width;
          const open = !seen[at] && alike(at);
          if (open && !inside) waiting.push(at);
          inside = open;
        }
      }
    }
    return [left, top, right + 1, bottom + 1];
  }

  invert() {
    const { bits } = this;
    for (let i = 0; i < bits.length; i++) bits[i] ^= 1;
    return this.everything();
  }

  clear() {
    const box = this.bounds();
    this.bits.fill(0);
    return box && [box[0], box[1], box[0] + box[2], box[1] + box[3]];
  }

  /** Grows the marked area by `radius` pixels; a negative radius shrinks it. */
  grow(radius) {
    const shrink = radius < 0;
    const r = Math.abs(radius);
    const value = shrink ? 0 : 1;
    const before = this.bits.slice();
    const { width, height } = this;
    for (let y = 0; y < height; y++) {
      const row = before.subarray(y * width, (y + 1) * width);
      let first = row.indexOf(value);
      while (first >= 0) {
        let last = row.indexOf(1 - value, first);
        if (last < 0) last = width;
        for (let dy = -r; dy <= r; dy++) {
          const to = y + dy;
          if (to < 0 || to >= height) continue;
          const half = Math.floor(Math.sqrt(r * r - dy * dy));
          const from = Math.max(0, first - half);
          const until = Math.min(width, last + half);
          this.bits.fill(value, to * width + from, to * width + until);
        }
        first = row.indexOf(value, last);
      }
    }
    return this.everything();
  }

  /** Returns [x, y, width, height] of the marked pixels; null if there are none. */
  bounds() {
    const { width, bits } = this;
    const start = bits.indexOf(1);
    if (start < 0) return null;
    const top = Math.floor(start / width);
    const bottom = Math.floor(bits.lastIndexOf(1) / width);
    let [left, right] = [width, -1];
    for (let y = top; y <= bottom; y++) {
      const row = bits.subarray(y * width, (y + 1) * width);
      const first = row.indexOf(1);
      if (first < 0) continue;
      left = Math.min(left, first);
      right = Math.max(right, row.lastIndexOf(1));
    }
    return [left, top, right - left + 1, bottom - top + 1];
  }

  everything() {
    return [0, 0, this.width, this.height];
  }

  /** Returns {width, height, box, bits}, eight pixels to a byte; null if none is marked. */
  packed() {
    const box = this.bounds();
    if (!box) return null;
    const [x, y, w, h] = box;
    let at = y * this.width + x - 1;
    let column = 0;
    const bits = pack(w * h, () => {
      if (column === w) {
        at += this.width - w;
        column = 0;
      }
      column++;
      return this.bits[++at];
    });
    return { width: this.width, height: this.height, box, bits };
  }

  /** Loads a packed mask, resized to this mask's size; null clears the mask. */
  load(packed) {
    this.bits.fill(0);
    if (!packed) return this.everything();
    const { width, height, box: [x, y, w, h], bits } = packed;
    const at = (i) => (bits[i >> 3] >> (7 - (i & 7))) & 1;
    if (width === this.width && height === this.height) {
      for (let row = 0, i = 0; row < h; row++) {
        for (let to = (y + row) * width + x, end = to + w; to < end; to++, i++) {
          this.bits[to] = at(i);
        }
      }
      return this.everything();
    }
    for (let row = 0; row < this.height; row++) {
      const from = source(row, this.height, height) - y;
      if (from < 0 || from >= h) continue;
      for (let column = 0; column < this.width; column++) {
        const along = source(column, this.width, width) - x;
        if (along < 0 || along >= w) continue;
        this.bits[row * this.width + column] = at(from * w + along);
      }
    }
    return this.everything();
  }

  #clipped(left, top, right, bottom) {
    return [
      Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)),
      Math.min(this.width, Math.ceil(right)), Math.min(this.height, Math.ceil(bottom)),
    ];
  }

  /** Sets the pixels of row `y` whose centres are between `low` and `high`. */
  #span(y, low, high, value) {
    const first = Math.max(0, Math.ceil(low - 0.5));
    const last = Math.min(this.width - 1, Math.floor(high - 0.5));
    if (first <= last) {
      this.bits.fill(value, y * this.width + first, y * this.width + last + 1);
    }
  }
}

/** Returns the pixel of the old side that is nearest to pixel `i` of the new side. */
const source = (i, side, old) => Math.floor(((2 * i + 1) * old) / (2 * side));

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

/** Packs `count` flags, eight to a byte, the first in the highest bit. */
export function pack(count, flag) {
  const bytes = new Uint8Array((count + 7) >> 3);
  for (let i = 0; i < count; i++) bytes[i >> 3] |= flag(i) << (7 - (i & 7));
  return bytes;
}

export function union(one, other) {
  if (!one || !other) return one ?? other;
  return [
    Math.min(one[0], other[0]), Math.min(one[1], other[1]),
    Math.max(one[2], other[2]), Math.max(one[3], other[3]),
  ];
}
