// Keeps unsaved work in the browser, for a reload, a crash or a lost server. Each tab has
// a session; the session of a closed tab is offered to the next tab.

const DATABASE = "gl_jax";
const DAYS = 7; // after which stored work is deleted

let opened = null;
let session = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("photos", { keyPath: ["session", "key"] });
      // Files and patches: large, and written only once.
      request.result.createObjectStore("blobs", { keyPath: ["session", "key", "name"] });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

/** Runs `work` on both stores in one transaction; returns the result of its request. */
async function within(mode, work) {
  const transaction = (await database()).transaction(["photos", "blobs"], mode);
  const request = work(transaction.objectStore("photos"), transaction.objectStore("blobs"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/** Returns the key range of a photo's blobs. */
const blobsOf = (session, key) => IDBKeyRange.bound([session, key], [session, key, []]);

/** Opens this tab's session; returns its own records and those of closed tabs. */
export async function begin() {
  const before = sessionStorage.getItem("session");
  session = before ?? crypto.getRandomValues(new Uint32Array(3)).join("-");
  sessionStorage.setItem("session", session);
  claim();
  const records = await within("readonly", (photos) => photos.getAll());
  const old = records.filter((r) => Date.now() - r.time > DAYS * 86_400_000);
  for (const record of old) await remove(record);
  const kept = records.filter((record) => !old.includes(record));
  kept.sort((a, b) => a.order - b.order);
  const others = kept.filter((record) => record.session !== session);
  let open = await openSessions();
  if (others.some((record) => open.has(record.session))) {
    // A tab that was closed a moment ago may still hold its lock.
    await new Promise((resolve) => setTimeout(resolve, 500));
    open = await openSessions();
  }
  return {
    own: kept.filter((record) => record.session === session),
    lost: others.filter((record) => !open.has(record.session)),
  };
}

/** Marks this tab as open, until it is closed. */
function claim() {
  // Missing over plain HTTP from another machine.
  navigator.locks?.request(`session-${session}`, () => new Promise(() => {}));
}

/** Returns the sessions of all open tabs. */
async function openSessions() {
  if (!navigator.locks) return new Set();
  const { held } = await navigator.locks.query();
  return new Set((held ?? []).map((lock) => lock.name.replace("session-", "")));
}

/** Stores the current state of a photo. */
export function keep(photo, order) {
  // A stored photo that is not loaded again has no changes; one of the server has a file.
  const isNew = photo.mask || photo.file || photo.steps.length;
  if (!session || photo.stored || !isNew) return Promise.resolve();
  const { key, name, file, serverId, saved, running } = photo;
  const blobs = new Map();
  if (file) blobs.set("file", file);
  const steps = photo.steps.map(({ before, mask, candidates, chosen }) => ({
    before,
    mask,
    chosen,
    candidates: candidates.map(({ url, patch, ...rest }) => {
      blobs.set(rest.result, patch);
      return rest;
    }),
  }));
  const record = {
    session, key, name, serverId, saved, running, steps, order,
    mask: photo.mask?.packed() ?? null, time: Date.now(),
  };
  photo.kept ??= new Set();
  const fresh = [...blobs].filter(([blob]) => !photo.kept.has(blob));
  for (const [blob] of fresh) photo.kept.add(blob);
  return within("readwrite", (photos, store) => {
    for (const [blob, content] of fresh) store.put({ session, key, name: blob, content });
    photos.put(record);
  });
}

/** Returns the record with its file and its patches. */
export async function withBlobs(record) {
  const all = await within("readonly", (photos, blobs) =>
    blobs.getAll(blobsOf(record.session, record.key)));
  const content = new Map(all.map((blob) => [blob.name, blob.content]));
  for (const { candidates } of record.steps) {
    for (const candidate of candidates) candidate.patch = content.get(candidate.result);
  }
  return { ...record, file: content.get("file") ?? null };
}

export const remove = (photo) =>
  session
    ? within("readwrite", (photos, blobs) => {
        const owner = photo.session ?? session;
        photos.delete([owner, photo.key]);
        blobs.delete(blobsOf(owner, photo.key));
      })
    : Promise.resolve();
