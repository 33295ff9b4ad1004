// What the page knows, and who wants to hear of changes.

export const state = {
  about: null,
  photos: [],
  current: null,
  lastMask: null, // packed, of the last run or load
  methods: new Set(), // names of those that are ticked
  options: { blend: "poisson", feather: 0, resize_to: "" },
  online: true,
};

const listeners = [];
let waiting = false;

export const onChange = (listener) => listeners.push(listener);

/** Tells the listeners, once for all changes until the next frame. */
export function changed() {
  if (waiting) return;
  waiting = true;
  queueMicrotask(() => {
    waiting = false;
    for (const listener of listeners) listener();
  });
}

/** The step of a photo that is seen: its last completion. */
export const shown = (photo) => photo?.steps.at(-1) ?? null;
export const chosen = (step) => step.candidates[step.chosen];

/** The identifier of what the photo is now: its last result, or itself. */
export const currentId = (photo) => {
  const step = shown(photo);
  return step ? chosen(step).result : photo.serverId;
};

export const isUnsaved = (photo) =>
  !photo.saved && (photo.steps.length > 0 || Boolean(photo.running) ||
    photo.mask?.bits.includes(1));
