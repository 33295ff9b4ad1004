"""Removes the objects of docs/model/removals.json, by several methods, and draws sheets.

    python docs/removals.py coco33/images --models demo,other.safetensors --output FOLDER

FOLDER gets masks/, completed/, and in sheets/ one PNG for each object, every pixel of the
photograph a pixel of the sheet or a square block of them. overview.jpg has all objects on
one page; removals.jpg leaves out photographs whose licence asks to share alike. Our models
are blended as in `gl-jax complete`.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import gl_jax
from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.evaluation.baselines import BASELINES
from gl_jax.figures.sheets import GREY, Tile, draw_sheet
from gl_jax.files import write_output

REMOVALS = Path(__file__).parent / "model" / "removals.json"
OTHERS = {"PatchMatch": "patchmatch", "Telea": "telea"}
"""Methods beside ours: column titles, and names in `BASELINES`."""
MARGIN = 40
"""Pixels around the hole that a sheet shows at least; else a quarter of its longer side."""
THUMBNAIL, BLOCKS = 192, 2
"""Side of a picture in the overview, in pixels, and removals beside each other."""
OUTLINE = 0, 255, 255

Removal = dict[str, Any]
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def read_removals() -> list[Removal]:
    """Returns the objects to remove, each with its photograph and its polygons."""
    removals: list[Removal] = json.loads(REMOVALS.read_text(encoding="utf-8"))
    return removals


def mask_of(removal: Removal) -> np.ndarray:
    """Returns bool [h, w], true inside the polygons and on their edges."""
    width, height = removal["size"]
    mask = np.zeros((height, width), np.uint8)
    for polygon in removal["polygons"]:
        cv2.fillPoly(mask, [np.array(polygon)], 1)
    return mask.astype(bool)


def methods_of(models: list[str]) -> dict[str, Method]:
    """Returns our models and the methods beside them, by their column titles."""
    ours = {Path(model).stem: gl_jax.load(model) for model in models}
    return {**ours, **{title: BASELINES[name] for title, name in OTHERS.items()}}


def pictures_of(
    removal: Removal, photograph: np.ndarray, results: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns crops around the object by title: as it is, outlined, and each result."""
    outlined = photograph.copy()
    for polygon in removal["polygons"]:
        cv2.polylines(outlined, [np.array(polygon)], True, OUTLINE)
    rows, columns = np.nonzero(mask_of(removal))
    margin = max(MARGIN, max(np.ptp(rows), np.ptp(columns)) // 4)
    box = tuple(
        slice(max(0, places.min() - margin), places.max() + margin + 1)
        for places in (rows, columns)
    )
    shown = {"photograph": photograph, "to remove": outlined, **results}
    return {title: picture[box] for title, picture in shown.items()}


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """Returns the picture as large as fits into a grey square of side THUMBNAIL."""
    scale = THUMBNAIL / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square = np.full((THUMBNAIL, THUMBNAIL, 3), GREY, np.uint8)
    top, left = (THUMBNAIL - height) // 2, (THUMBNAIL - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=method
    )
    return square


def draw_overview(shown: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Draws a PNG with a row of small pictures for each object, BLOCKS beside each other."""
    titles = list(next(iter(shown.values())))
    rows = [
        [Tile(thumbnail(pictures[title]), name if not at else "")
         for at, title in enumerate(titles)]
        for name, pictures in shown.items()
    ]  # fmt: skip
    empty = [Tile(None)] * len(titles)
    rows += [empty] * (-len(rows) % BLOCKS)
    tall = len(rows) // BLOCKS
    beside = [[*itertools.chain(*rows[row::tall])] for row in range(tall)]
    return draw_sheet(titles * BLOCKS, beside)


def main() -> None:
    """Writes masks, completed photographs and sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, metavar="COCO_FOLDER")
    parser.add_argument("--models", default="demo", help="names or files, with commas")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    gl_jax.use_compilation_cache()
    methods = methods_of(options.models.split(","))
    removals, shown = read_removals(), {}
    for removal in removals:
        name, mask = removal["name"], mask_of(removal)
        print(f"{name}: {removal['removed']}, {mask.sum()} pixels", flush=True)
        path = options.photographs / removal["photograph"]
        photograph = images.read_rgb(path, str(path))
        results = {title: run(photograph, mask) for title, run in methods.items()}
        hole = images.from_array(mask * np.uint8(255))
        images.write(hole, options.output / "masks" / f"{name}.png")
        for title, result in results.items():
            file = options.output / "completed" / f"{name}_{title.lower()}.png"
            images.write(images.from_array(result), file)
        shown[name] = pictures = pictures_of(removal, photograph, results)
        sheet = draw_sheet(list(pictures), [[Tile(each) for each in pictures.values()]])
        write_output(options.output / "sheets" / f"{name}.png", sheet)
    plain = [each["name"] for each in removals if "SA" not in each["licence"]]
    for file, names in (("overview.jpg", list(shown)), ("removals.jpg", plain)):
        page = draw_overview({name: shown[name] for name in names})
        images.write(images.decode(page, file), options.output / file, quality=85)


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(str(error))
