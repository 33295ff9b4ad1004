"""Published figures, shown beside measured ones."""

from collections.abc import Mapping
from typing import NamedTuple

from gl_jax.evaluation import Protocol


class Published(NamedTuple):
    """A row of a published table."""

    label: str
    values: Mapping[str, float]
    """Figures by the names of columns, and `fid`."""
    masks: str = ""
    """Kind of masks; empty if the table has one kind only."""


def _mmediting(data: str, l1: float, psnr: float, ssim: float) -> Published:
    values = {"hole_l1_percent": l1, "psnr_db": psnr, "ssim": ssim}
    return Published(f"Global&Local of mmediting, {data}", values)


def _mat(name: str, masks: str, fid: float, p_ids: float, u_ids: float) -> Published:
    values = {"fid": fid, "p_ids_percent": p_ids, "u_ids_percent": u_ids}
    return Published(f"{name}, Places365 at 512 pixels", values, masks)


PUBLISHED: Mapping[Protocol, tuple[Published, ...]] = {
    # configs/inpainting/global_local/README.md of open-mmlab/mmediting.
    "mmediting": (
        _mmediting("Places365-Challenge val", 11.164, 23.152, 0.862),
        _mmediting("CelebA-HQ", 6.678, 26.780, 0.904),
    ),
    # The README of fenglinglwb/MAT.
    "mat": (
        _mat("MAT, 8 million photographs", "mat-small", 0.78, 31.72, 43.71),
        _mat("MAT, 1.8 million photographs", "mat-small", 1.07, 27.42, 41.93),
        _mat("CoModGAN", "mat-small", 1.10, 26.95, 41.88),
        _mat("LaMa-Big", "mat-small", 0.99, 22.79, 40.58),
        _mat("MAT, 8 million photographs", "mat-large", 1.96, 23.42, 38.34),
        _mat("MAT, 1.8 million photographs", "mat-large", 2.90, 19.03, 35.36),
        _mat("CoModGAN", "mat-large", 2.92, 19.64, 35.78),
        _mat("LaMa-Big", "mat-large", 2.97, 13.09, 32.39),
    ),
}

YEH: Mapping[str, Mapping[str, float]] = {
    "Context Encoder, CelebA": {
        "center": 21.3, "pattern": 19.2, "random": 20.6, "half": 15.5,
    },
    "Context Encoder, SVHN": {
        "center": 22.3, "pattern": 22.3, "random": 24.1, "half": 19.1,
    },
    "Context Encoder, Cars": {
        "center": 14.1, "pattern": 14.0, "random": 16.1, "half": 12.6,
    },
    "semantic inpainting, CelebA": {
        "center": 19.4, "pattern": 17.4, "random": 22.8, "half": 13.7,
    },
    "semantic inpainting, SVHN": {
        "center": 19.0, "pattern": 19.8, "random": 33.0, "half": 14.6,
    },
    "semantic inpainting, Cars": {
        "center": 13.5, "pattern": 14.1, "random": 18.9, "half": 11.1,
    },
}  # fmt: skip
"""PSNR in dB by kind of masks (Yeh et al. 2017, the table of the quantitative comparison)."""


def of(protocol: Protocol, masks: str) -> tuple[Published, ...]:
    """Returns the published figures to show beside an evaluation with these masks."""
    rows = PUBLISHED.get(protocol, ())
    return tuple(row for row in rows if row.masks in ("", masks))
