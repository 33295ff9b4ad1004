"""The time of a run: steps by part, pauses, and losses to interruptions."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

Part = Literal["data", "device"]
"""Parts of a step that the host waits in: for photographs, for the devices."""


class Progress(NamedTuple):
    """Training that a run keeps: of its steps until a checkpoint, in all its lives."""

    started: float
    """Unix time of the run's first start."""
    seconds: float = 0.0
    """Seconds of training until the checkpoint, pauses and steps done anew left out."""


class Pace(NamedTuple):
    """Seconds of a step, on average over some."""

    total: float
    data: float
    """The host waits for photographs."""
    device: float
    """It hands over a step and waits for the devices."""
    at_peak: float
    """The devices would take so long at their peak; 0 if that is not known."""

    def values(self) -> dict[str, float]:
        """Returns them for a line of the log, with the model FLOP utilisation, `mfu`."""
        seconds = {
            "data_seconds": self.data,
            "device_seconds": self.device,
            "host_seconds": self.total - self.data - self.device,
        }
        return seconds | ({"mfu": self.at_peak / self.total} if self.at_peak else {})

    def facts(self) -> list[str]:
        """Returns them for the screen."""
        host = self.total - self.data - self.device
        parts = f"data {self.data:.2g}, device {self.device:.2g}, host {host:.2g}"
        facts = [f"{self.total:.3g} s/step ({parts})"]
        return facts + [f"MFU {self.at_peak / self.total:.0%}"] * bool(self.at_peak)


class Clock:
    """Seconds of training, which stand still during a pause, and of them those by part."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._before = progress or Progress(time.time())
        self._begun = time.perf_counter()
        self._paused = 0.0
        self._stopped_at: float | None = None
        self._parts: dict[Part, float] = {"data": 0.0, "device": 0.0}
        self._at_peak = 0.0
        self._counted = self._sums()

    def seconds(self) -> float:
        """Returns the seconds of training since this start."""
        stopped = self._stopped_at
        now = time.perf_counter() if stopped is None else stopped
        return now - self._begun - self._paused

    def progress(self) -> Progress:
        """Returns the seconds of training kept in this life and in those before it."""
        return self._before._replace(seconds=self._before.seconds + self.seconds())

    def goodput(self) -> float:
        """Returns the share of the time since the run's first start that is kept training.

        Steps after the newest checkpoint count until they are lost.
        """
        started, seconds = self.progress()
        return seconds / max(time.time() - started, seconds, 1e-9)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stands still: for compiling, evaluating, saving."""
        if self._stopped_at is not None:  # a pause within a pause
            yield
            return
        began = self._stopped_at = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - began
            self._stopped_at = None

    @contextlib.contextmanager
    def part(self, name: Part, *, at_peak: float = 0.0) -> Iterator[None]:
        """Counts the time inside for a part of the step, but for pauses.

        The step's arithmetic would take `at_peak` seconds at the devices' peak.
        """
        began, counts = self.seconds(), self._stopped_at is None
        yield
        self._parts[name] += self.seconds() - began
        self._at_peak += at_peak if counts else 0.0

    def pace(self, steps: int) -> Pace | None:
        """Returns the pace of the `steps` since the previous call; None if there are none."""
        before, self._counted = self._counted, self._sums()
        if steps <= 0:
            # The rest of a step that compiled, which was paused for: of no step's time.
            self._paused += self._counted.total - before.total
            self._counted = self._sums()
        if steps <= 0 or self._counted.total <= before.total:
            return None
        total, data, device, at_peak = (
            (now - then) / steps
            for now, then in zip(self._counted, before, strict=True)
        )
        return Pace(total, data, device, at_peak)

    def _sums(self) -> Pace:
        parts = self._parts
        return Pace(self.seconds(), parts["data"], parts["device"], self._at_peak)
