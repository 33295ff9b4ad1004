"""Thick lines, drawn without a library, whose next version might draw others."""

import numpy as np
from jaxtyping import Bool, Float


def line(
    shape: tuple[int, ...],
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
    width: float,
) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels, [h, w], with centres within half of `width` of a line.

    `start` and `end` are (y, x) in pixels. The ends are round, and the pixel of `start` is
    always included.
    """
    line = np.zeros(shape, bool)
    # Only the rectangle that the line can reach is computed.
    ends = np.sort([start, end], axis=0)
    top, left = np.maximum(np.floor(ends[0] - width / 2).astype(int), 0)
    bottom, right = np.ceil(ends[1] + width / 2).astype(int)
    reach = line[top:bottom, left:right]
    y, x = np.ogrid[: reach.shape[0], : reach.shape[1]]
    y, x = y + (top + 0.5 - start[0]), x + (left + 0.5 - start[1])
    step_y, step_x = end - start
    square = max(step_y**2 + step_x**2, np.finfo(float).tiny)
    along = np.clip((y * step_y + x * step_x) / square, 0, 1)
    reach[:] = np.hypot(y - along * step_y, x - along * step_x) <= width / 2
    first_y, first_x = np.minimum(start.astype(int), np.subtract(shape, 1))
    line[first_y, first_x] = True
    return line
