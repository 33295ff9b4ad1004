// Completions: starts, watches and cancels jobs, and repeats those whose results the
// server has dropped.

import * as api from "./api.js";
import { described } from "./panel.js";
import { ensureUploaded, load } from "./photos.js";
import { changed, chosen, currentId, shown, state } from "./state.js";
import { S } from "./strings.js";
import { announce, banner, toast } from "./toasts.js";

const PAUSE = 120; // milliseconds between two requests for a job's state
const RETRY = 1000; // milliseconds between two attempts to reach the server

const AT_ONCE = 2; // photos of a batch in the server's queue: one runs, one is next

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Completes the marked pixels with every ticked method. If nothing is marked after a
 *  completion, its hole is completed again, and the results join its candidates. */
export async function run(photo, { mask = photo.mask.packed(), onDone }) {
  const again = !mask && shown(photo);
  if (!mask && !again) {
    toast(S.notice.nothing);
    return;
  }
  const methods = [...state.methods];
  const recipe = again ? again.mask : mask;
  state.lastMask = recipe;
  photo.running = { again: Boolean(again), mask: recipe, jobs: [], total: methods.length };
  changed();
  try {
    // Other photos need not be loaded: a thousand would fill the browser's memory.
    if (photo.stored) await load(photo);
    const options = { ...state.options };
    for (const method of methods) {
      if (photo.running.stopping) break;
      const id = again ? beforeStep(photo, again) : currentId(photo);
      const job = await start(photo, id, method, recipe, options, again);
      photo.running.jobs.push({ ...job, options });
    }
    if (photo.running.stopping) await cancel(photo);
    onDone(photo); // stores the jobs, so that a reload finds them
    await watch(photo, onDone);
  } catch (error) {
    report(error);
  } finally {
    photo.running = null;
    changed();
    onDone(photo);
  }
}

/** Completes all photos with one mask, or each with its own if `mask` is null. */
export async function runAll({ mask, onDone }) {
  const own = (photo) => (photo.mask ? photo.mask.packed() : photo.stored?.mask);
  const waiting = state.photos.filter((photo) => !photo.running && (mask ?? own(photo)));
  if (!waiting.length) {
    toast(S.notice.nothing);
    return;
  }
  const batch = { total: waiting.length, done: 0, stopping: false };
  state.batch = batch;
  changed();
  const work = async () => {
    while (waiting.length && state.online && !batch.stopping) {
      const photo = waiting.shift();
      const isOpen = state.photos.includes(photo) && !photo.running;
      if (isOpen) await run(photo, { mask: mask ?? own(photo), onDone });
      batch.done++;
      changed();
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } finally {
    state.batch = null;
    changed();
  }
}

/** Cancels the completion of all photos. */
export async function cancelAll() {
  state.batch.stopping = true;
  await Promise.all(state.photos.map(cancel));
}

/** Continues to watch the jobs that were started before a reload. */
export async function resume(photo, { onDone }) {
  try {
    await watch(photo, onDone);
  } catch (error) {
    report(error);
  } finally {
    photo.running = null;
    changed();
    onDone(photo);
  }
}

export async function cancel(photo) {
  if (!photo.running) return;
  photo.running.stopping = true;
  changed();
  for (const { id } of photo.running.jobs) await api.cancel(id).catch(() => {});
}

const beforeStep = (photo, step) => {
  const at = photo.steps.indexOf(step);
  return at > 0 ? chosen(photo.steps[at - 1]).result : photo.serverId;
};

async function start(photo, id, method, mask, options, again) {
  try {
    return await api.start(id, method, mask, options);
  } catch (error) {
    if (error.status !== 404) throw error;
    await replay(photo);
    const now = again ? beforeStep(photo, again) : currentId(photo);
    return api.start(now, method, mask, options);
  }
}

/** Waits for the jobs of a photo, and shows each result as it comes. */
async function watch(photo, onDone) {
  const { running } = photo;
  let step = running.again ? shown(photo) : null;
  const first = step?.candidates.length ?? 0;
  for (const job of running.jobs) {
    await finished(job.id, (now) => {
      Object.assign(job, now);
      changed();
    });
    // Those of a thousand photos would hide the current one.
    if (!state.batch || photo === state.current) for (const notice of job.notices) toast(notice);
    if (job.state === "failed") toast(job.error, "error");
    if (job.state === "cancelled") toast(S.cancelled);
    if (job.state !== "done" || job.taken) continue;
    const candidate = await candidateOf(job);
    if (step) {
      step.candidates.push(candidate);
      if (step.candidates.length === first + 1) step.chosen = first;
    } else {
      step = { mask: running.mask, candidates: [candidate], chosen: 0 };
      if (photo.history) {
        photo.history.complete(step);
      } else {
        step.before = null; // never opened, so without marks
        photo.steps.push(step);
      }
      running.again = true; // for a reload: the others belong to this step
    }
    job.taken = true;
    announce(S.finished(described(job.method)[0], S.seconds(job.seconds)));
    photo.saved = false;
    onDone(photo);
  }
}

async function candidateOf({ method, options, result, box, seconds }) {
  const patch = await api.patch(result, box);
  return { method, options, result, box, seconds, patch, url: URL.createObjectURL(patch) };
}

/** Returns the job when it has ended; waits while the server is unreachable. */
async function finished(id, onProgress) {
  for (;;) {
    try {
      const job = await api.job(id);
      online();
      onProgress(job);
      if (!["queued", "running"].includes(job.state)) return job;
      await sleep(PAUSE);
    } catch (error) {
      if (!(error instanceof api.Unreachable)) throw error;
      offline();
      await sleep(RETRY);
    }
  }
}

/** Shows an error. */
export function report(error) {
  if (error instanceof api.Unreachable) offline();
  else if (error.status === 401) banner(S.errors.token);
  else toast(error.message, "error");
}

function offline() {
  if (!state.online) return;
  state.online = false;
  banner(S.errors.gone);
  changed();
  const wait = async () => {
    while (!state.online) {
      await sleep(RETRY);
      try {
        await api.about();
        online();
      } catch (error) {
        if (error.status === 401) {
          banner(S.errors.token);
          return;
        }
      }
    }
  };
  wait();
}

function online() {
  if (state.online) return;
  state.online = true;
  banner(null);
  toast(S.errors.back);
  changed();
}

/** Computes the results of a photo again that the server has dropped; returns the
 *  identifier of the last one. */
export async function replay(photo) {
  let { id } = await ensureUploaded(photo);
  for (const step of photo.steps) {
    const candidate = chosen(step);
    const lost = await api.facts(candidate.result).then(() => false, (error) => {
      if (error.status !== 404) throw error;
      return true;
    });
    if (lost) {
      const job = await api.start(id, candidate.method, step.mask, candidate.options);
      const done = await finished(job.id, () => {});
      if (done.state !== "done") throw new Error(done.error || S.cancelled);
      candidate.result = done.result;
      toast(S.notice.replayed);
    }
    id = candidate.result;
  }
  return id;
}
