// Draws the mask above the photo, in tiles: a stroke redraws only the pixels that it
// touched, and areas without marks have no tile.

const SIDE = 512; // pixels of a tile's side
const COLOR = 0xff6a2bff; // ABGR: a red that is rare in photographs

export class Overlay {
  constructor(element) {
    this.element = element;
    this.tiles = new Map();
    this.mask = null;
  }

  show(mask) {
    this.mask = mask;
    this.tiles.clear();
    this.element.replaceChildren();
    if (mask) this.update(mask.everything());
  }

  /** Redraws the box [left, top, right, bottom]. */
  update(box) {
    const { mask } = this;
    if (!mask || !box) return;
    const [left, top, right, bottom] = box;
    // Tiles overlap by a pixel, so that no seam shows between them at any zoom.
    for (let ty = Math.max(0, Math.floor((top - 1) / SIDE)); ty * SIDE < bottom; ty++) {
      for (let tx = Math.max(0, Math.floor((left - 1) / SIDE)); tx * SIDE < right; tx++) {
        this.#draw(tx, ty, left, top, right, bottom);
      }
    }
  }

  #draw(tx, ty, left, top, right, bottom) {
    const { width, height, bits } = this.mask;
    const x0 = Math.max(left, tx * SIDE);
    const y0 = Math.max(top, ty * SIDE);
    const x1 = Math.min(right, (tx + 1) * SIDE + 1, width);
    const y1 = Math.min(bottom, (ty + 1) * SIDE + 1, height);
    if (x0 >= x1 || y0 >= y1) return;
    const key = `${tx},${ty}`;
    let tile = this.tiles.get(key);
    if (!tile) {
      let some = false;
      for (let y = y0; y < y1 && !some; y++) {
        some = bits.subarray(y * width + x0, y * width + x1).includes(1);
      }
      if (!some) return;
      tile = this.#tile(tx, ty);
      this.tiles.set(key, tile);
    }
    const image = new ImageData(x1 - x0, y1 - y0);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = y0, to = 0; y < y1; y++) {
      for (let from = y * width + x0, end = y * width + x1; from < end; from++, to++) {
        if (bits[from]) pixels[to] = COLOR;
      }
    }
    tile.putImageData(image, x0 - tx * SIDE, y0 - ty * SIDE);
  }

  #tile(tx, ty) {
    const canvas = document.createElement("canvas");
    canvas.width = Math.min(SIDE + 1, this.mask.width - tx * SIDE);
    canvas.height = Math.min(SIDE + 1, this.mask.height - ty * SIDE);
    canvas.style.left = `${tx * SIDE}px`;
    canvas.style.top = `${ty * SIDE}px`;
    this.element.append(canvas);
    return canvas.getContext("2d", { willReadFrequently: true });
  }
}
