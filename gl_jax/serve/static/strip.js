// The row of open photos.

import { isUnsaved, onChange, shown, state } from "./state.js";
import { S } from "./strings.js";

/** Shows the row; its buttons call `select(photo)` and `close(photo)`. */
export function connect(element, { select, close }) {
  const drawn = new WeakMap(); // photo -> its item and what the item shows
  let shownLast = null;
  onChange(() => {
    const focused = document.activeElement?.closest?.("#strip .photo")?.dataset.key;
    element.hidden = state.photos.length < 2;
    // An item that shows the same stays: one that is replaced while the mouse button is
    // down would lose its click.
    const items = state.photos.map((photo) => {
      const shows = [photo.thumbnail, markOf(photo), photo === state.current].join();
      if (drawn.get(photo)?.shows !== shows) {
        drawn.set(photo, { shows, item: itemOf(photo, select, close) });
      }
      return drawn.get(photo).item;
    });
    const kept = new Set(items);
    for (const old of [...element.children]) if (!kept.has(old)) old.remove();
    items.forEach((item, i) => {
      if (element.children[i] !== item) element.insertBefore(item, element.children[i] ?? null);
    });
    const isLost = focused && !element.contains(document.activeElement);
    if (isLost) element.querySelector(`[data-key="${focused}"] button`)?.focus();
    if (shownLast === state.current) return;
    shownLast = state.current;
    element.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

function itemOf(photo, select, close) {
  const item = document.createElement("div");
  item.className = "photo";
  item.dataset.key = photo.key;
  const mark = markOf(photo);
  const button = document.createElement("button");
  button.setAttribute("aria-current", photo === state.current);
  button.title = mark ? `${photo.name}, ${S.states[mark]}` : photo.name;
  button.setAttribute("aria-label", button.title);
  if (photo.thumbnail) {
    const image = new Image();
    image.src = photo.thumbnail;
    image.alt = "";
    button.append(image);
  }
  button.addEventListener("click", () => select(photo));
  const cross = document.createElement("button");
  cross.className = "close";
  cross.textContent = "×";
  cross.setAttribute("aria-label", S.remove(photo.name));
  cross.addEventListener("click", () => {
    if (!isUnsaved(photo) || confirm(S.removeUnsaved(photo.name))) close(photo);
  });
  item.append(button, cross);
  if (mark) {
    const dot = document.createElement("span");
    dot.className = `state ${mark}`;
    item.append(dot);
  }
  return item;
}

const markOf = (photo) =>
  photo.running ? "running" : shown(photo) ? "done" : isUnsaved(photo) ? "marked" : "";
