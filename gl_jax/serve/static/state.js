// The page's state, and the listeners to its changes.

export const state = {
  about: null,
  photos: [],
  current: null,
  lastMask: null, // packed, of the last run or load
  methods: new Set(), // names of the ticked methods
  options: { blend: "poisson", feather: 0, resize_to: "" },
  online: true,
  batch: null, // {total, done, stopping} while all photos are completed
};

const listeners = [];
let waiting = false;

export const onChange = (listener) => listeners.push(listener);

/** Notifies the listeners, once for all changes of the current task. */
export function changed() {
  if (waiting) return;
  waiting = true;
  queueMicrotask(() => {
    waiting = false;
    for (const listener of listeners) listener();
  });
}

/** Returns the displayed step of a photo, its last completion; null if it has none. */
export const shown = (photo) => photo?.steps.at(-1) ?? null;
export const chosen = (step) => step.candidates[step.chosen];

/** Returns the identifier of the photo's last result, or of the photo itself. */
export const currentId = (photo) => {
  const step = shown(photo);
  return step ? chosen(step).result : photo.serverId;
};

export const isUnsaved = (photo) =>
  !photo.saved && (photo.steps.length > 0 || Boolean(photo.running) ||
    (photo.mask ? photo.mask.bits.includes(1) : Boolean(photo.stored?.mask)));
