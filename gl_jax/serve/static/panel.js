// The panel beside the photo: methods, options, results.

import { crop } from "./photos.js";
import { onChange, shown, state } from "./state.js";
import { S } from "./strings.js";

const LARGE = 760; // pixels of a result in the dialog

const find = (selector) => document.querySelector(selector);

/** Returns the title and the description of a method. */
export function described(name) {
  const known = S.methods[name];
  const about = state.about.methods.find((method) => method.name === name);
  if (known) {
    const [title, text] = known;
    return [title, about?.hole ? `${text} ${S.trained(about.hole)}` : text];
  }
  return [shortName(name), about?.hole ? S.trained(about.hole) : ""];
}

/** Returns the end of a model's path, as long as no other method has the same. */
function shortName(path) {
  const parts = path.split("/").filter(Boolean);
  for (let count = 1; count < parts.length; count++) {
    const end = parts.slice(-count).join("/");
    const same = state.about.methods.filter(({ name }) => `/${name}`.endsWith(`/${end}`));
    if (same.length < 2) return end;
  }
  return path;
}

/** Fills the list of methods, and connects the options. */
export function connect() {
  const list = find("#methods");
  const known = Object.keys(S.methods);
  const place = ({ name }) => (known.includes(name) ? known.indexOf(name) : 0.5);
  for (const { name } of [...state.about.methods].sort((a, b) => place(a) - place(b))) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = name;
    box.checked = state.methods.has(name);
    box.addEventListener("change", () => {
      if (box.checked) state.methods.add(name);
      else state.methods.delete(name);
      if (!state.methods.size) {
        state.methods.add(name);
        box.checked = true;
      }
    });
    const text = document.createElement("span");
    for (const [i, line] of described(name).entries()) {
      const part = document.createElement("span");
      part.className = i ? "about" : "name";
      part.textContent = line;
      text.append(part);
    }
    label.append(box, text);
    list.append(label);
  }
  const network = state.about.methods.find((method) => method.kind === "network");
  find("#resize").placeholder = network ? S.resizeAuto(network.image) : "";
  const { options } = state;
  find("#blend").addEventListener("change", (event) => {
    options.blend = event.target.checked ? "poisson" : "none";
  });
  for (const [id, name] of [["#feather", "feather"], ["#resize", "resize_to"]]) {
    find(id).addEventListener("change", ({ target }) => {
      if (target.reportValidity()) options[name] = target.value;
    });
  }
  onChange(showResults);
}

let shownKey = "";
let shownStep = null;

/** Shows the candidates of the last completion, to choose among. */
async function showResults() {
  const photo = state.current;
  const step = photo?.mask ? shown(photo) : null;
  find("#results").hidden = !step;
  if (!step) return;
  const key = [photo.key, step.chosen, ...step.candidates.map((c) => c.result)].join();
  if (key === shownKey) return;
  if (shownStep !== step) find("#panel").scrollTop = 0;
  shownKey = key;
  shownStep = step;
  find("#enlarge").hidden = step.candidates.length < 2;
  const cards = await cardsOf(photo, step, 240);
  if (key === shownKey) find("#results .cards").replaceChildren(...cards);
}

/** Shows the candidates large, in a dialog. */
export async function enlarge() {
  const photo = state.current;
  const step = shown(photo);
  if (!step) return;
  const dialog = find("#side-by-side");
  const cards = await cardsOf(photo, step, LARGE, () => dialog.close());
  const before = document.createElement("button");
  before.disabled = true;
  before.append(await crop(photo, step, null, LARGE), S.original);
  dialog.querySelector(".cards").replaceChildren(before, ...cards);
  dialog.showModal();
}

let choose = () => {};
/** Sets the action for a newly chosen candidate: (photo, step, index). */
export const onChoose = (action) => (choose = action);

const cardsOf = (photo, step, side, then = () => {}) =>
  Promise.all(step.candidates.map(async (candidate, index) => {
    const card = document.createElement("button");
    card.setAttribute("aria-pressed", index === step.chosen);
    const [title] = described(candidate.method);
    card.append(
      await crop(photo, step, candidate, side),
      `${title}, ${S.seconds(candidate.seconds)}`,
    );
    card.addEventListener("click", () => {
      choose(photo, step, index);
      then();
    });
    return card;
  }));
