"""Writes the tables of docs/comparison.md and its sheets from the results of run.sh.

python docs/comparison/report.py RUNS
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
PAGE = HERE.parent / "comparison.md"
NAMES = {
    "demo": "ours, `demo`",
    "demo-sharp": "ours, `demo-sharp`",
    "mean": "mean colour",
    "telea": "Telea",
    "ns": "Navier-Stokes",
    "biharmonic": "biharmonic",
    "patchmatch": "PatchMatch",
    "shift_map": "shift-map",
    "criminisi": "Criminisi",
    "context_encoder": "Context Encoder",
    "semantic": "semantic inpainting",
}
COLUMNS = {
    "PSNR in the hole, dB": ("hole_psnr_db", 2),
    "SSIM": ("ssim", 4),
    "VIF": ("vif", 4),
    "L1 in the hole, %": ("hole_l1_percent", 2),
    "SWD fine": ("swd_fine", 1),
    "SWD coarse": ("swd_coarse", 1),
    "grid": ("grid", 2),
}
TABLES = {
    "kodak24-center": "Kodak, the middle 64 x 64 of 128 x 128",
    "kodak24-box": "Kodak, a rectangle of 48 to 64 a side anywhere",
    "validation-center": "Validation, the middle",
    "validation-box": "Validation, a rectangle",
}
SHEETS, SHEET_WIDTH, SHEET_QUALITY = ("kodak24-center", "validation-box"), 1700, 84
"""Sheets that the page shows; their width in pixels and quality as JPEG."""


def cell(value: Any, digits: int) -> str:
    """A number, or a mean with its standard error; a dash for one that is missing."""
    if isinstance(value, dict):
        error = value.get("standard_error")
        mean = cell(value["mean"], digits)
        return mean if error is None else f"{mean} ± {error:.{digits}f}"
    return "-" if value is None else f"{value:.{digits}f}"


def table(folder: Path, seconds: dict[str, tuple[str, str]]) -> str:
    """The Markdown table of one comparison."""
    record = json.loads((folder / "comparison.json").read_text())
    titles = ["method", *COLUMNS, *(["seconds", "MiB"] if seconds else [])]
    rows = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for method, values in record["methods"].items():
        cells = [cell(values.get(key), digits) for key, digits in COLUMNS.values()]
        cells += seconds.get(method, ("-", "-")) if seconds else ()
        rows.append(f"| {NAMES.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def times(folder: Path) -> dict[str, tuple[str, str]]:
    """Seconds and memory of a photograph, by method."""
    record = json.loads((folder / "comparison.json").read_text())
    return {
        name: (
            f"{values['seconds']['mean']:.2g}",
            f"{values['peak_memory_mib']['mean']:.1f}",
        )
        for name, values in record["methods"].items()
    }


def main(runs: Path) -> None:
    """Replaces what stands between the marks of the page."""
    measured, parts = times(runs / "time"), []
    for name, title in TABLES.items():
        parts.append(f"**{title}**")
        parts.append(table(runs / name, measured if name == "kodak24-center" else {}))
    for name in SHEETS:
        with Image.open(runs / name / "comparison.png") as sheet:
            size = SHEET_WIDTH, round(sheet.height * SHEET_WIDTH / sheet.width)
            small = sheet.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        small.save(HERE / f"{name}.jpg", quality=SHEET_QUALITY)
    text = PAGE.read_text()
    begin, end = "<!-- tables -->", "<!-- end of tables -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n\n" + "\n\n".join(parts) + f"\n\n{end}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
