// Photos: opens them from the disk, the server or the browser's storage, and draws them.

import * as api from "./api.js";
import { History } from "./history.js";
import { Mask } from "./mask.js";
import { changed, chosen, state } from "./state.js";
import * as storage from "./storage.js";
import { S } from "./strings.js";
import { toast } from "./toasts.js";

let count = 0;

/** Returns a photo that is not loaded yet. */
function entry(about) {
  const key = about.key ?? `${Date.now().toString(36)}-${count++}`;
  return {
    key, name: about.name, file: null, serverId: null, thumbnail: null, url: null,
    width: 0, height: 0, mask: null, history: null, steps: [], running: null,
    saved: true, ...about,
  };
}

/** Adds photos of the command line: {id, name, order}. */
export function addServed(photos) {
  for (const { id, name, order } of photos) {
    const photo = entry({ key: `served-${id}`, serverId: id, name, order });
    state.photos.push(photo);
    api.thumbnail(id).then((blob) => {
      photo.thumbnail = URL.createObjectURL(blob);
      changed();
    }).catch(() => {}); // opening the photo shows the error
  }
  changed();
}

/** Returns the dropped files, and the photos in dropped folders, by name. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const files = (await Promise.all(entries.filter(Boolean).map(filesIn))).flat();
  const readable = ({ name }) =>
    state.about?.suffixes.some((suffix) => name.toLowerCase().endsWith(suffix));
  return files.filter(readable).sort((a, b) => a.name.localeCompare(b.name));
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, fail) => entry.file(resolve, fail))];
  const reader = entry.createReader();
  const all = [];
  for (;;) {
    // A hundred entries at a time, until there are none.
    const some = await new Promise((resolve, fail) => reader.readEntries(resolve, fail));
    if (!some.length) return (await Promise.all(all.map(filesIn))).flat();
    all.push(...some);
  }
}

/** Uploads and adds files; returns the photos among them. */
export async function addFiles(files) {
  const added = [];
  for (const file of files) {
    const limit = state.about.largest_upload;
    if (file.size > limit) {
      toast(S.errors.tooLarge(file.name, limit >> 20), "error");
      continue;
    }
    try {
      const facts = await api.upload(file.name || "photo.png", file);
      const photo = entry({ name: facts.name, file, serverId: facts.id });
      photo.thumbnail = URL.createObjectURL(await api.thumbnail(facts.id));
      state.photos.push(photo);
      added.push(photo);
      changed();
    } catch (error) {
      toast(error.message, "error");
    }
  }
  return added;
}

/** Adds photos that the browser stored for this tab or a closed one. */
export async function addStored(records) {
  for (const kept of records) {
    const record = await storage.withBlobs(kept);
    const { key, name, file, serverId, saved, running, steps, order } = record;
    const photo = entry({ key, name, file, serverId, saved, running, steps, order, stored: record });
    for (const candidate of steps.flatMap((step) => step.candidates)) {
      candidate.url = URL.createObjectURL(candidate.patch);
    }
    const same = state.photos.findIndex((other) => other.key === key);
    state.photos.splice(same < 0 ? state.photos.length : same, same < 0 ? 0 : 1, photo);
    ensureUploaded(photo).then(({ id }) => api.thumbnail(id)).then((blob) => {
      photo.thumbnail = URL.createObjectURL(blob);
      changed();
    }).catch(() => {}); // opening the photo shows the error
  }
  changed();
}

/** Loads the picture, mask and history of a photo. */
export async function load(photo) {
  if (photo.mask) return;
  photo.loading ??= (async () => {
    const facts = await ensureUploaded(photo);
    const picture = await api.picture(facts.id);
    const url = URL.createObjectURL(picture);
    const image = new Image();
    image.src = url;
    try {
      await image.decode();
    } catch {
      throw new Error(S.errors.undecodable(photo.name));
    }
    const { width, height, format, notices } = facts;
    Object.assign(photo, { url, width, height, format });
    for (const notice of photo.stored ? [] : notices) toast(notice);
    const mask = new Mask(width, height);
    if (photo.stored?.mask) mask.load(photo.stored.mask);
    photo.mask = mask;
    photo.history = new History(mask, photo.steps);
    photo.stored = null;
  })();
  try {
    await photo.loading;
  } finally {
    photo.loading = null;
  }
}

/** Returns the server's facts about the photo; uploads its file again if necessary. */
export async function ensureUploaded(photo) {
  try {
    if (photo.serverId) return await api.facts(photo.serverId);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  if (!photo.file) throw new Error(S.errors.lost(photo.name));
  const facts = await api.upload(photo.name, photo.file);
  photo.serverId = facts.id;
  return facts;
}

export function close(photo) {
  const at = state.photos.indexOf(photo);
  state.photos.splice(at, 1);
  storage.remove(photo);
  const urls = photo.steps.flatMap((step) => step.candidates.map((c) => c.url));
  for (const url of [photo.url, photo.thumbnail, ...urls]) if (url) URL.revokeObjectURL(url);
  if (state.current === photo) state.current = state.photos[at] ?? state.photos[at - 1] ?? null;
  changed();
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Draws the photo and its completions up to `step`, by default all. `candidate` replaces
 *  the chosen candidate of that step; null leaves the step out. */
export async function draw(context, photo, step = null, candidate = undefined) {
  context.drawImage(await decoded(photo.url), 0, 0, photo.width, photo.height);
  for (const each of photo.steps) {
    const one = each === step && candidate !== undefined ? candidate : chosen(each);
    if (one) context.drawImage(await decoded(one.url), one.box[0], one.box[1]);
    if (each === step) break;
  }
}

/** Returns a canvas with the surroundings of a step's box, at most `side` pixels. */
export async function crop(photo, step, candidate, side) {
  const [x, y, w, h] = step.candidates.find(Boolean).box;
  const margin = Math.max(16, Math.max(w, h) / 3);
  const left = Math.max(0, x - margin);
  const top = Math.max(0, y - margin);
  const width = Math.min(photo.width, x + w + margin) - left;
  const height = Math.min(photo.height, y + h + margin) - top;
  const scale = Math.min(4, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.setTransform(scale, 0, 0, scale, -left * scale, -top * scale);
  await draw(context, photo, step, candidate);
  return canvas;
}

const cache = new WeakMap(); // photo -> {steps, pixels}

/** Caches the pixels of the displayed photo, for the wand. */
export async function readPixels(photo) {
  const steps = photo.steps.map((step) => chosen(step).result).join();
  if (cache.get(photo)?.steps === steps) return;
  const canvas = document.createElement("canvas");
  canvas.width = photo.width;
  canvas.height = photo.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  await draw(context, photo);
  const { data } = context.getImageData(0, 0, photo.width, photo.height);
  cache.set(photo, { steps, pixels: data });
}

/** Returns the cached pixels, RGBA; null if there are none. */
export const pixels = (photo) => cache.get(photo)?.pixels ?? null;
