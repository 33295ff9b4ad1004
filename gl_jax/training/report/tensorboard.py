"""TensorBoard's event files, written by tensorboardX's inner writer."""

import contextlib
import itertools
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """An event file, written event by event: no thread, nothing to lose in a crash."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files = itertools.count()
        self._writer: Any = self._open()

    def _open(self) -> Any:
        # This also imports torch (a second) where it is installed; the package does so
        # in its first lines, for type checks that are of no use here.
        from tensorboardX.event_file_writer import EventsWriter

        # Named by the second; the process tells two that start within one apart.
        name = f".{os.getpid()}.{next(self._files)}"
        return EventsWriter(str(self._folder / "events"), name)

    def forget_from(self, step: int) -> None:
        """Hides the earlier events of `step` and later ones from TensorBoard."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values by their tags."""
        self._summarize(
            step, [{"tag": k, "simple_value": v} for k, v in values.items()]
        )

    def image(self, step: int, tag: str, png: Path) -> None:
        """Writes the RGB picture of a file."""
        from tensorboardX.proto.summary_pb2 import Summary

        content = png.read_bytes()
        width, height = struct.unpack(">2I", content[16:24])  # of the header, IHDR
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=content
        )
        self._summarize(step, [{"tag": tag, "image": image}])

    def close(self) -> None:
        """Closes the file; the next event opens another."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # Every event was flushed when it was written. Where that failed it fails
            # again, and the file itself is left to be closed.
            with contextlib.suppress(OSError):
                writer.close()
            with contextlib.suppress(OSError):
                writer._py_recordio_writer.close()

    def _summarize(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._write(step=step, summary=summary)

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            self._writer = self._open()
        try:
            self._writer.write_event(Event(wall_time=time.time(), **event))
            self._writer.flush()
        except OSError:
            # The file may end within an event, after which none would be read: the
            # next event goes into a file of its own.
            self.close()
            raise
