// The row of open photos.

import { isUnsaved, onChange, shown, state } from "./state.js";
import { S } from "./strings.js";

/** Shows the row; its buttons call `select(photo)` and `close(photo)`. */
export function connect(element, { select, close }) {
  onChange(() => {
    const focused = document.activeElement?.closest?.("#strip .photo")?.dataset.key;
    element.hidden = state.photos.length < 2;
    element.replaceChildren(...state.photos.map((photo) => {
      const item = document.createElement("div");
      item.className = "photo";
      item.dataset.key = photo.key;
      const current = photo === state.current;
      item.setAttribute("aria-current", current);
      const button = document.createElement("button");
      button.title = photo.name;
      button.setAttribute("aria-label", photo.name);
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
      const mark = photo.running ? "running" : shown(photo) ? "done" : isUnsaved(photo) ? "marked" : "";
      if (mark) {
        const dot = document.createElement("span");
        dot.className = `state ${mark}`;
        item.append(dot);
      }
      return item;
    }));
    if (focused) element.querySelector(`[data-key="${focused}"] button`)?.focus();
    element.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}
