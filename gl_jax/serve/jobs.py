"""Runs completions one after the other; each reports progress and can be cancelled."""

import queue
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from gl_jax.config import UsageError
from gl_jax.inpainting import inputs, masks
from gl_jax.inpainting.batch import Look
from gl_jax.serve.methods import Methods, Watch
from gl_jax.serve.store import Store, UnknownError

Hole = Bool[np.ndarray, "h w"]
State = Literal["queued", "running", "done", "failed", "cancelled"]

LONGEST_QUEUE = 256
"""Largest number of waiting jobs; further ones are refused."""
LARGEST_QUEUE = 256 << 20
"""Bytes of the waiting jobs' masks, above which further jobs are refused."""
FORGOTTEN_SECONDS = 120.0
"""Seconds without a request about any job, after which all are cancelled: no page is
open any more."""
KEPT = 1000
"""Number of ended jobs whose state can still be read."""


class FullError(RuntimeError):
    """The queue is full."""


class _Cancelled(Exception):
    """Ends a method from inside its callbacks."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask drawn in the page, stored as the bits inside a box; 0 outside the box."""

    width: int
    height: int
    box: tuple[int, int, int, int]
    """x, y, width and height, inside the mask."""
    bits: bytes
    """Pixels of the box, row by row, eight to a byte, the first one in the highest bit."""

    def hole(self) -> Hole:
        """Returns the complete mask, bool [height, width], True = missing."""
        x, y, across, down = self.box
        flags = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=across * down)
        hole = np.zeros((self.height, self.width), bool)
        hole[y : y + down, x : x + across] = flags.reshape(down, across)
        return hole


@dataclass(eq=False)
class Job:
    """A completion and its state."""

    id: str
    picture: str
    """Identifier of the photo or result to complete."""
    method: str
    mask: DrawnMask | None
    """None once the job has ended."""
    look: Look
    state: State = "queued"
    done: int = 0
    """Number of completed windows."""
    windows: int = 0
    """Number of all windows; 0 while it is unknown."""
    notices: list[str] = field(default_factory=list)
    error: str = ""
    result: str = ""
    """Identifier of the result."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """x, y, width and height of the changed part."""
    seconds: float = 0.0
    wanted: bool = True
    """False once the job has been cancelled."""


class Jobs:
    """A queue of jobs and the thread that runs them."""

    def __init__(self, store: Store, methods: Methods) -> None:
        """Starts the thread, which ends with the program."""
        self._store, self._methods = store, methods
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._last_request = time.monotonic()
        threading.Thread(target=self._work, name="jobs", daemon=True).start()

    def add(self, picture: str, method: str, mask: DrawnMask, look: Look) -> Job:
        """Appends a job and returns it; raises FullError if too many are waiting."""
        job = Job(secrets.token_hex(16), picture, method, mask, look)
        with self._lock:
            self._last_request = time.monotonic()
            waiting = [j.mask for j in self._jobs.values() if j.mask is not None]
            size = sum(len(m.bits) for m in waiting)
            if len(waiting) >= LONGEST_QUEUE or size > LARGEST_QUEUE:
                raise FullError(f"{len(waiting)} completions are waiting already.")
            self._jobs[job.id] = job
            ended = [i for i, j in self._jobs.items() if j.mask is None]
            for old in ended[: max(0, len(ended) - KEPT)]:
                del self._jobs[old]
        self._queue.put(job)
        return job

    def get(self, identifier: str) -> Job:
        """Returns the job; raises UnknownError if it is unknown or forgotten."""
        with self._lock:
            self._last_request = time.monotonic()
            job = self._jobs.get(identifier)
        if job is None:
            raise UnknownError(f"job {identifier[:32]!r} is not known.")
        return job

    def cancel(self, identifier: str) -> Job:
        """Cancels the job and returns it.

        A waiting job ends at once, a running one after its current window, or within
        POLL_SECONDS if its method is classical.
        """
        job = self.get(identifier)
        job.wanted = False
        with self._lock:
            if job.state == "queued":
                job.state, job.mask = "cancelled", None
        return job

    def cancel_all(self) -> bool:
        """Cancels every job; returns whether one is still running."""
        with self._lock:
            for job in self._jobs.values():
                job.wanted = False
            return any(job.state == "running" for job in self._jobs.values())

    def describe(self, job: Job) -> dict[str, Any]:
        """Returns the job's state as JSON; `before` is the number of jobs ahead of it."""
        with self._lock:
            jobs = [*self._jobs.values()]
        before = jobs[: jobs.index(job)] if job in jobs else []
        return {
            "id": job.id, "state": job.state, "method": job.method,
            "done": job.done, "windows": job.windows, "notices": job.notices,
            "error": job.error, "result": job.result, "box": job.box,
            "seconds": round(job.seconds, 3),
            "before": sum(j.state in ("queued", "running") for j in before),
        }  # fmt: skip

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            with self._lock:
                if job.state != "queued":
                    continue
                job.state = "running"
            start = time.monotonic()
            state: State = "failed"
            try:
                self._check(job)
                self._complete(job)
                state = "done" if job.wanted else "cancelled"
            except _Cancelled:
                state = "cancelled"
            except (UsageError, UnknownError) as error:
                job.error = str(error)
            except MemoryError:
                job.error = "not enough memory; make the photo or its hole smaller."
            except Exception as error:
                # The server continues; the page shows the error.
                text = " ".join(str(error).split())[:300]
                job.error = f"{type(error).__name__}: {text}"
            job.seconds = time.monotonic() - start
            with self._lock:
                job.state, job.mask = state, None

    def _check(self, job: Job) -> None:
        """Raises _Cancelled if the result is no longer wanted."""
        idle = time.monotonic() - self._last_request
        if not job.wanted or idle > FORGOTTEN_SECONDS:
            raise _Cancelled

    def _complete(self, job: Job) -> None:
        picture = self._store.get(job.picture)
        photo, mask = picture.photo, job.mask
        assert photo is not None and mask is not None  # the store decodes; it runs once
        notify = job.notices.append
        hole = inputs.fitted(
            mask.hole(), photo, "the mask", strict=False, notify=notify
        )
        if not hole.any():
            raise UsageError("nothing is marked: paint over an object first.")

        def progress(done: int, windows: int) -> None:
            job.done, job.windows = done, windows
            self._check(job)

        watch = Watch(notify, progress, lambda: self._check(job))
        result = self._methods[job.method](photo, hole, job.look, watch)
        filled = hole if result.filled is None else result.filled
        rows, columns = masks.around(filled)
        width, height = columns.stop - columns.start, rows.stop - rows.start
        job.box = (columns.start, rows.start, width, height)
        job.result = self._store.add_result(picture.name, result).id
