// What the browser keeps of unsaved work, for a reload, a crash, a server that went away.
// Each tab has a session; one that no tab has any more is offered to the next tab.

const DATABASE = "gl_jax";
const DAYS = 7;

let opened = null;
let session = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("photos", { keyPath: ["session", "key"] });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function within(mode, work) {
  const transaction = (await database()).transaction("photos", mode);
  const request = work(transaction.objectStore("photos"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/** Begins; returns this tab's own records if it was reloaded, and those of lost tabs. */
export async function begin() {
  const before = sessionStorage.getItem("session");
  session = before ?? crypto.getRandomValues(new Uint32Array(3)).join("-");
  sessionStorage.setItem("session", session);
  const alive = await claim();
  const records = await within("readonly", (store) => store.getAll());
  const old = records.filter((r) => Date.now() - r.time > DAYS * 86_400_000);
  for (const record of old) await remove(record);
  const kept = records.filter((record) => !old.includes(record));
  kept.sort((a, b) => a.order - b.order);
  return {
    own: kept.filter((record) => record.session === session),
    lost: kept.filter((record) => record.session !== session && !alive.has(record.session)),
  };
}

/** Says that this tab lives, and returns the sessions of all tabs that do. */
async function claim() {
  if (!navigator.locks) return new Set(); // not over plain HTTP from another machine
  navigator.locks.request(`session-${session}`, () => new Promise(() => {}));
  const { held } = await navigator.locks.query();
  return new Set((held ?? []).map((lock) => lock.name.replace("session-", "")));
}

/** Keeps a photo as it is now. */
export function keep(photo, order) {
  if (!session || !photo.mask) return Promise.resolve();
  const { key, name, file, serverId, saved, running } = photo;
  const steps = photo.steps.map(({ before, candidates, chosen }) => ({
    before,
    chosen,
    candidates: candidates.map(({ url, ...rest }) => rest),
  }));
  const record = {
    session, key, name, file, serverId, saved, running, steps, order,
    mask: photo.mask.packed(), time: Date.now(),
  };
  return within("readwrite", (store) => store.put(record));
}

export const remove = (photo) =>
  session
    ? within("readwrite", (store) => store.delete([photo.session ?? session, photo.key]))
    : Promise.resolve();

/** Takes over records of a lost tab. */
export async function adopt(records) {
  for (const record of records) {
    await within("readwrite", (store) => store.delete([record.session, record.key]));
    await within("readwrite", (store) => store.put({ ...record, session }));
  }
}
