// The bar at the bottom of the photo: progress, and the button that cancels.

import { described } from "./panel.js";
import { S } from "./strings.js";

/** Shows the state of a photo's completion, or of that of all photos; null hides the bar. */
export function showWork(running, batch) {
  const work = document.querySelector("#work");
  work.hidden = !running && !batch;
  if (work.hidden) return;
  work.querySelector("button").disabled = Boolean((batch ?? running).stopping);
  const bar = work.querySelector("progress");
  if (batch) {
    bar.max = batch.total;
    bar.value = batch.done;
    work.querySelector("span").textContent =
      batch.stopping ? S.stopping : S.photosDone(batch.done, batch.total);
    return;
  }
  const job = running.jobs.find(({ state: now }) => ["queued", "running"].includes(now));
  let text = S.preparing;
  bar.removeAttribute("value");
  if (running.stopping) text = S.stopping;
  else if (job?.state === "queued" && job.before) text = S.waiting(job.before);
  else if (job?.windows) {
    text = S.windows(job.done, job.windows);
    bar.max = job.windows;
    bar.value = job.done;
  } else if (job?.state === "running") text = S.running;
  const several = running.total > 1 && job;
  work.querySelector("span").textContent =
    several ? `${described(job.method)[0]}: ${text}` : text;
}
