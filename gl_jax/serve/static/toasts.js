// Short messages at the edge of the page, which screen readers read out.

const SECONDS = { info: 6, error: 12 }; // until a message disappears

/** Shows a message for some seconds. */
export function toast(text, kind = "info") {
  const place = document.querySelector("#toasts");
  for (const old of place.children) if (old.textContent === text) old.remove();
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  line.addEventListener("click", () => line.remove());
  place.append(line);
  while (place.children.length > 4) place.firstElementChild.remove();
  setTimeout(() => line.remove(), 1000 * SECONDS[kind]);
}

/** Has screen readers say a text that is visible elsewhere. */
export const announce = (text) => (document.querySelector("#said").textContent = text);

/** Shows a message until it is replaced or removed by null; buttons are [text, action]. */
export function banner(text, buttons = []) {
  const place = document.querySelector("#banner");
  place.hidden = !text;
  place.replaceChildren();
  if (!text) return;
  const line = document.createElement("span");
  line.textContent = text;
  place.append(line);
  for (const [label, action] of buttons) {
    const button = document.createElement("button");
    button.textContent = label;
    button.addEventListener("click", () => {
      banner(null);
      action();
    });
    place.append(button);
  }
}
