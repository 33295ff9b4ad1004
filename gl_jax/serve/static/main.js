// The page: connects the photo, the tools, the panel, the keys and the server.

import * as api from "./api.js";
import * as keys from "./keys.js";
import * as panel from "./panel.js";
import * as photos from "./photos.js";
import * as runs from "./runs.js";
import * as saving from "./saving.js";
import { changed, isUnsaved, onChange, shown, state } from "./state.js";
import * as storage from "./storage.js";
import { S, translate } from "./strings.js";
import * as strip from "./strip.js";
import { connect as connectTheme } from "./theme.js";
import { banner, toast } from "./toasts.js";
import { Tools } from "./tools.js";
import { Viewer } from "./viewer.js";
import { showWork } from "./work.js";

const find = (selector) => document.querySelector(selector);
const GROWTH = 4; // pixels for each press of + or -

translate();
connectTheme(find("#theme"));

const stage = find("#stage");
const viewer = new Viewer(stage);
const tools = new Tools(viewer, {
  pixels: photos.pixels,
  onChange: marked,
  onSize: showSize,
  mayDraw(photo) {
    if (photo.running) return false;
    return tools.tool !== "wand" || Boolean(photos.pixels(photo));
  },
});

/** Wraps an action so that its errors are shown. */
const tried = (action) => async (...args) => {
  try {
    await action(...args);
  } catch (error) {
    runs.report(error);
  }
};

/** Stores the photo in the browser, after a delay that joins quick changes. */
function keep(photo) {
  clearTimeout(photo.keeping);
  photo.keeping = setTimeout(() => {
    const order = state.photos.indexOf(photo);
    if (order >= 0) storage.keep(photo, order).catch(() => {}); // private windows may forbid it
  }, 300);
}

function marked(photo) {
  photo.saved = false;
  keep(photo);
  changed();
}

/** Updates the page after a change of the photo that no tool made. */
function refresh(photo) {
  if (photo === state.current) {
    viewer.overlay.show(photo.mask);
    viewer.showSteps();
    readPixels();
  }
  keep(photo);
  changed();
}

const readPixels = tried(async () => {
  if (tools.tool === "wand" && state.current?.mask) await photos.readPixels(state.current);
});

const select = tried(async (photo) => {
  state.current = photo;
  changed();
  sessionStorage.setItem("current", photo?.key ?? "");
  if (photo) {
    await photos.load(photo);
    if (state.current !== photo) return;
    tools.resize(photo.brush ?? Math.max(photo.width, photo.height) / 24);
  }
  viewer.show(photo);
  readPixels();
  changed();
  if (photo?.running?.jobs.length && !photo.watched) {
    photo.watched = true;
    runs.resume(photo, { onDone: refresh });
  }
});

const open = tried(async (files) => {
  if (!state.about) return; // a banner tells why
  const added = await photos.addFiles(files);
  added.forEach(keep);
  if (added.length) await select(added.at(-1));
});

/** Applies `work` to the current photo's mask; `work` returns the changed box. */
function change(work) {
  const photo = state.current;
  if (!photo?.mask || photo.running) return;
  const box = work(photo.mask);
  viewer.overlay.update(box);
  if (photo.history.commit(box)) marked(photo);
}

const actions = {
  open: () => find("#files").click(),
  tool(name) {
    tools.choose(name);
    readPixels();
    changed();
  },
  space(on) {
    tools.space = on;
    changed();
  },
  undo: () => step("undo"),
  redo: () => step("redo"),
  invert: () => change((mask) => mask.invert()),
  grow: (direction) => change((mask) => mask.grow(GROWTH * direction)),
  clear: () => change((mask) => mask.clear()),
  last() {
    if (state.lastMask) useMask(state.lastMask);
    else toast(S.notice.noLast);
  },
  compare() {
    if (shown(state.current)) viewer.compare(!viewer.comparing);
    else toast(S.notice.noResult);
    changed();
  },
  run: tried(async () => {
    const photo = state.current;
    if (!photo?.mask) toast(S.notice.noPhoto);
    else if (!photo.running) await runs.run(photo, { onDone: refresh });
  }),
  cancel: tried(() => (state.batch ? runs.cancelAll() : runs.cancel(state.current))),
  save: tried(async () => {
    if (shown(state.current)) await saving.save(state.current);
    else toast(S.notice.noResult);
  }),
  copy: tried(async () => {
    if (state.current?.mask) await saving.copy(state.current);
  }),
  help: () => find("#keys").showModal(),
  escape() {
    if (tools.abandon()) return;
    if (state.current?.running || state.batch) actions.cancel();
    else viewer.fit();
  },
  next(direction) {
    const at = state.photos.indexOf(state.current) + direction;
    if (state.photos[at]) select(state.photos[at]);
  },
};

function step(direction) {
  const photo = state.current;
  if (!photo?.history || photo.running) return;
  tools.abandon();
  const steps = photo.steps.length;
  const box = photo.history[direction]();
  if (!box) return;
  photo.saved = false;
  viewer.overlay.update(box);
  if (steps !== photo.steps.length) refresh(photo);
  keep(photo);
  changed();
}

function useMask(packed) {
  const { mask } = state.current ?? {};
  if (!mask) return;
  if (packed.width !== mask.width || packed.height !== mask.height) {
    toast(S.notice.maskResized(mask.width, mask.height));
  }
  change(() => mask.load(packed));
}

const loadMask = tried(async (file) => {
  const { width, height, bits, notices } = await api.readMask(file);
  for (const notice of notices) toast(notice);
  useMask({ width, height, box: [0, 0, width, height], bits });
});

const runAll = tried(async () => {
  const shared = find("#run-all select").value === "shared";
  const mask = state.current?.mask?.packed() ?? shown(state.current)?.mask;
  if (shared && !mask) toast(S.notice.nothing);
  else await runs.runAll({ mask: shared ? mask : null, onDone: refresh });
});

function showSize(size) {
  if (state.current) state.current.brush = size;
  find("#size").value = Math.round(1000 * Math.log(size) / Math.log(2000));
  find("#size-value").textContent = S.pixels(size);
}

// --- display

viewer.onZoom = (scale) => {
  find("#zoom").textContent = S.percent(Math.round(100 * scale));
};

onChange(() => {
  const photo = state.current;
  const ready = Boolean(photo?.mask);
  const running = photo?.running;
  document.title = photo ? `${photo.name} · ${S.name}` : S.name;
  find("#welcome").hidden = Boolean(photo);
  const history = photo?.history;
  find("#undo").disabled = !history?.done.length || Boolean(running);
  find("#redo").disabled = !history?.undone.length || Boolean(running);
  const needsPhoto = "#save, #save-as, #zoom, #invert, #grow, #shrink, #clear, #load-mask, #save-mask";
  for (const button of document.querySelectorAll(needsPhoto)) button.disabled = !ready;
  for (const button of document.querySelectorAll("[data-run]")) {
    button.disabled = !ready || Boolean(running) || !state.online;
  }
  find("#zoom").hidden = !ready;
  find("#last").disabled = !ready || !state.lastMask;
  find("#compare").disabled = !ready || !shown(photo);
  if (viewer.comparing && !shown(photo)) viewer.compare(false);
  find("#compare").setAttribute("aria-pressed", viewer.comparing);
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === tools.tool);
  }
  find("#tool-options h2").textContent = S.tool[tools.tool];
  for (const element of document.querySelectorAll("#tool-options [data-for]")) {
    element.hidden = !element.dataset.for.split(" ").includes(tools.tool);
  }
  for (const [name, side] of [["x", photo?.width], ["y", photo?.height]]) {
    find(`#rectangle [name=${name}]`).max = ready ? side - 1 : "";
  }
  const hand = tools.space || tools.tool === "hand";
  stage.classList.toggle("grab", ready && hand);
  stage.classList.toggle("drawing", ready && !hand && ["brush", "eraser"].includes(tools.tool));
  stage.classList.toggle("pointing", ready && !hand);
  find("#run-all").hidden = state.photos.length < 2;
  find("#run-all button").textContent = S.runAll(state.photos.length);
  find("#run-all button").disabled = Boolean(state.batch) || !state.online;
  showWork(running, state.batch);
});

// --- clicks, drops and pastes

const clicked = (selector, action) => {
  for (const element of document.querySelectorAll(selector)) {
    element.addEventListener("click", action);
  }
};
clicked("#open, #welcome-open", actions.open);
clicked("[data-run]", actions.run);
clicked("[data-cancel]", actions.cancel);
clicked("#load-mask", () => find("#mask-file").click());
clicked("#save-mask", () => saving.saveMask(state.current));
clicked("#grow", () => actions.grow(1));
clicked("#shrink", () => actions.grow(-1));
clicked("#run-all button", runAll);
clicked("#enlarge", tried(panel.enlarge));
clicked("#zoom", () => viewer.fit());
clicked("#settings", () => {
  const isOpen = find("#panel").classList.toggle("open");
  find("#panel").scrollTop = 0;
  find("#settings").setAttribute("aria-expanded", isOpen);
});
for (const name of ["undo", "redo", "compare", "save", "help", "invert", "clear", "last"]) {
  clicked(`#${name}`, actions[name]);
}
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => actions.tool(button.dataset.tool));
}
// Returns the focus to the photo after a mouse click, so that its keys work.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.detail && button && !button.closest("dialog, #banner")) stage.focus({ preventScroll: true });
});
for (const [input, action] of [["#files", open], ["#mask-file", ([file]) => file && loadMask(file)]]) {
  find(input).addEventListener("change", ({ target }) => {
    const files = [...target.files];
    target.value = "";
    action(files);
  });
}
find("#size").addEventListener("input", ({ target }) => {
  tools.resize(2000 ** (target.value / 1000));
  tools.preview();
});
find("#tolerance").value = tools.tolerance;
const showTolerance = () => (find("#tolerance-value").textContent = tools.tolerance);
find("#tolerance").addEventListener("input", ({ target }) => {
  tools.tolerance = Number(target.value);
  showTolerance();
});
showTolerance();
find("#rectangle").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(form.get(name)));
  change((mask) => mask.rectangle(x, y, x + w, y + h, 1));
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? stage.classList.remove("dropping"));
addEventListener("drop", tried(async (event) => {
  event.preventDefault();
  stage.classList.remove("dropping");
  await open(await photos.filesOf(event.dataTransfer));
}));
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) open(files);
});
addEventListener("beforeunload", (event) => {
  if (state.photos.some(isUnsaved)) event.preventDefault();
});

clicked("[data-close]", (event) => event.target.closest("dialog").close());

// --- start

keys.list(find("#keys .columns"));
keys.connect(actions, tools, viewer);
strip.connect(find("#strip"), {
  select,
  close(photo) {
    photos.close(photo);
    if (viewer.photo !== state.current) select(state.current);
  },
});
saving.connect(tried);
panel.onChoose((photo, chosenStep, index) => {
  chosenStep.chosen = index;
  photo.saved = false;
  refresh(photo);
});

async function begin() {
  try {
    state.about = await api.about();
  } catch (error) {
    banner(error.status === 401 ? S.errors.token : error.message);
    changed();
    return;
  }
  state.methods.add(state.about.methods[0].name);
  panel.connect();
  find("#files").accept = ["image/*", ...state.about.suffixes].join();
  const { own, lost } = await storage.begin().catch(() => ({ own: [], lost: [] }));
  await photos.addStored(own);
  const known = new Set(own.map(({ key }) => key));
  const served = state.about.photos.map((photo, order) => ({ ...photo, order }));
  photos.addServed(served.filter(({ id }) => !known.has(`served-${id}`)));
  state.photos.sort((a, b) => a.order - b.order);
  changed();
  const current = state.photos.find(({ key }) => key === sessionStorage.getItem("current"));
  if (state.photos.length) await select(current ?? state.photos[0]);
  if (lost.some((record) => !record.saved)) offerLost(lost);
}

function offerLost(lost) {
  banner(S.restore, [
    [S.restoreYes, tried(async () => {
      await photos.addStored(lost);
      const restored = state.photos.find(({ key }) => key === lost[0].key);
      await select(restored);
      // Moves them into this tab's session.
      for (const photo of state.photos.filter((each) => each.stored)) await photos.load(photo);
      for (const record of lost) await storage.remove(record);
      state.photos.forEach(keep);
    })],
    [S.restoreNo, () => lost.forEach((record) => storage.remove(record))],
  ]);
}

begin();
