// Saves results: as downloads, as a ZIP, into the server's folder, to the clipboard.

import * as api from "./api.js";
import { replay } from "./runs.js";
import { changed, currentId, shown, state } from "./state.js";
import { S } from "./strings.js";
import { toast } from "./toasts.js";

const showAll = (notices) => notices.forEach((notice) => toast(notice));

/** Saves the displayed photo: into the folder if there is one, else as a download. */
export async function save(photo, options = {}, { download = !state.about.folder } = {}) {
  await withResult(photo, async (id) => {
    if (download) {
      const { blob, name, notices } = await api.file(id, options);
      // Another name, because the photo itself is often in the same folder.
      const renamed = name.replace(/(\.[^.]*)?$/, "_completed$1");
      offer(blob, renamed);
      showAll(notices);
      toast(S.savedAs(renamed));
    } else {
      const { name, notices } = await api.saveIntoFolder(id, photo.key, options);
      showAll(notices);
      toast(S.savedAs(`${state.about.folder}/${name}`));
    }
    photo.saved = true;
    changed();
  });
}

export const completed = () => state.photos.filter(shown);

/** Downloads all results as a ZIP. */
export async function saveZip(options = {}) {
  const photos = completed();
  const ids = [];
  for (const photo of photos) ids.push(await replay(photo));
  offer(await api.zip(ids, options), "completed.zip");
  for (const photo of photos) photo.saved = true;
  changed();
}

/** Saves each result into the folder. */
export async function saveAll(options = {}) {
  for (const photo of completed()) await save(photo, options);
}

export async function saveMask(photo) {
  const { width, height, bits } = photo.mask;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < bits.length; i++) pixels[i] = bits[i] ? 0xffffffff : 0xff000000;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  offer(blob, `${photo.name.replace(/\.[^.]*$/, "")}_mask.png`);
}

export async function copy(photo) {
  if (!navigator.clipboard?.write) throw new Error(S.errors.copy);
  await withResult(photo, async (id) => {
    const png = api.file(id, { format: "png" }).then(({ blob }) => blob);
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
    toast(S.copied);
  });
}

/** Runs `action` with the photo's identifier, again if the server has dropped the result. */
async function withResult(photo, action) {
  try {
    await action(currentId(photo));
  } catch (error) {
    if (error.status !== 404) throw error;
    await action(await replay(photo));
  }
}

function offer(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const FORMATS = ["png", "jpg", "webp", "tif", "avif"];

/** Connects the dialog; `tried(action)` shows the errors of an action. */
export function connect(tried) {
  const find = (selector) => document.querySelector(selector);
  find("#save-as").addEventListener("click", () => {
    const own = new Option(S.formatOwn(state.current.format), "");
    const others = FORMATS.map((format) => new Option(format.toUpperCase(), format));
    find("#format").replaceChildren(own, ...others);
    const { folder } = state.about;
    const { length } = completed();
    find("#into-folder").hidden = !folder;
    find("#into-folder").textContent = S.intoFolder(folder);
    find("#zip").hidden = length < 2;
    find("#zip").textContent = S.zip(length);
    find("#all-into-folder").hidden = !folder || length < 2;
    find("#all-into-folder").textContent = S.allIntoFolder(length, folder);
    find("#saving").showModal();
  });
  const actions = {
    "#download": (options) => save(state.current, options, { download: true }),
    "#into-folder": (options) => save(state.current, options),
    "#zip": saveZip,
    "#all-into-folder": saveAll,
  };
  for (const [selector, action] of Object.entries(actions)) {
    find(selector).addEventListener("click", tried(async () => {
      if (!find("#quality").reportValidity()) return;
      find("#saving").close();
      await action({ format: find("#format").value, quality: find("#quality").value });
    }));
  }
}
