"""Runs the classical methods in a separate process, which can be killed at any time.

Their libraries cannot be interrupted, and some need minutes. The pipe carries JSON and
the bytes of arrays.
"""

import contextlib
import json
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
from jaxtyping import Bool, UInt8

from gl_jax.config import UsageError
from gl_jax.evaluation.baselines import BASELINES

Image = UInt8[np.ndarray, "h w 3"]
Hole = Bool[np.ndarray, "h w"]

POLL_SECONDS = 0.05
"""Seconds between two checks for a cancelled job."""


class Process:
    """A worker process, started by the first call and kept for later ones."""

    def __init__(self) -> None:
        """Does not start the process yet."""
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def complete(
        self, method: str, image: Image, hole: Hole, check: Callable[[], None]
    ) -> Image:
        """Returns the image, uint8 [h, w, 3], completed by a method of `BASELINES`.

        `hole` is bool [h, w], True = missing. `check` is called every POLL_SECONDS; if it
        raises, the process is killed. Raises UsageError if the method fails.
        """
        pipe, fresh = self._started()
        try:
            if fresh:
                # Waits for the start, a second or more, so that `check` can end it: a
                # write into a full pipe could not be interrupted.
                self._await(pipe, check)
                pipe.recv_bytes()
            shape = [int(side) for side in image.shape]
            pipe.send_bytes(json.dumps({"method": method, "shape": shape}).encode())
            pipe.send_bytes(np.ascontiguousarray(image).tobytes())
            pipe.send_bytes(np.packbits(hole).tobytes())
            self._await(pipe, check)
            answer = json.loads(pipe.recv_bytes())
            if answer.get("error"):
                raise UsageError(f"{method}: {answer['error']}")
            return np.frombuffer(pipe.recv_bytes(), np.uint8).reshape(shape)
        except UsageError:
            raise
        except (OSError, EOFError) as error:
            self.close()
            raise UsageError(
                f"{method} ended without a result; make the photo or its hole smaller."
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kills the process."""
        with self._lock:
            if self._process is not None and self._pipe is not None:
                self._process.kill()
                self._process.join()
                self._pipe.close()
            self._process = self._pipe = None

    def _await(self, pipe: Connection, check: Callable[[], None]) -> None:
        while not pipe.poll(POLL_SECONDS):
            check()

    def _started(self) -> tuple[Connection, bool]:
        """Returns the pipe, and True if its process was started by this call."""
        with self._lock:
            fresh = self._pipe is None
            if self._pipe is None:
                # Not a fork, which would lack JAX's threads.
                context = multiprocessing.get_context("spawn")
                self._pipe, theirs = context.Pipe()
                self._process = context.Process(
                    target=_work, args=(theirs,), name="baselines", daemon=True
                )
                self._process.start()
                theirs.close()
            return self._pipe, fresh


def _work(pipe: Connection) -> None:
    # Ctrl-C reaches every process of a terminal; this one ends when its pipe closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        pipe.send_bytes(b"ready")
        while True:
            task = json.loads(pipe.recv_bytes())
            shape = task["shape"]
            image = np.frombuffer(pipe.recv_bytes(), np.uint8).reshape(shape)
            count = shape[0] * shape[1]
            bits = np.frombuffer(pipe.recv_bytes(), np.uint8)
            hole = np.unpackbits(bits, count=count).reshape(shape[:2]).astype(bool)
            try:
                result = BASELINES[task["method"]](image, hole)
            except Exception as error:  # of any library; shown to the user
                text = " ".join(str(error).split())[:300] or type(error).__name__
                pipe.send_bytes(json.dumps({"error": text}).encode())
            else:
                pipe.send_bytes(b"{}")
                pipe.send_bytes(np.ascontiguousarray(result).tobytes())
