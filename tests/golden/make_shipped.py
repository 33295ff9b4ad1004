"""Writes shipped.npz: pictures that the shipped models make of two photographs.

By hand, after another model took their place (seconds):

    python tests/golden/make_shipped.py
"""

from pathlib import Path

import numpy as np

import gl_jax
from gl_jax.weights import native

FOLDER = Path(__file__).parent
KEEP = 3
"""Every third pixel each way of a raw output is stored."""


def main() -> None:
    arrays = {}
    with np.load(FOLDER / "0.1.0" / "pictures.npz") as stored:
        for model in native.shipped():
            completer = gl_jax.load(model)
            for size in ("small", "square"):
                image, mask = stored[f"{size}.image"], stored[f"{size}.mask"]
                raw = completer.raw(image, mask)
                print(f"{model} {size}: spread {raw[mask].std():.3f} in the hole")
                arrays[f"{model}.{size}.raw"] = raw[::KEEP, ::KEEP]
                arrays[f"{model}.{size}.completed"] = completer(image, mask)[mask]
    np.savez_compressed(FOLDER / "shipped.npz", **arrays)


if __name__ == "__main__":
    main()
