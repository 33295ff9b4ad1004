"""The metrics of an evaluation: their names in `--metrics`, columns, needs and cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from gl_jax import metrics
from gl_jax.config import UsageError, did_you_mean
from gl_jax.evaluation.tables import Column

Images = Shaped[Array, "b h w 3"]
Mask = Bool[Array, "b h w 1"]
Values = dict[str, Float[Array, " b"]]


@dataclass(frozen=True)
class Metric:
    """A selectable metric."""

    columns: Mapping[str, Column] = field(default_factory=dict)
    """Columns of its values of each picture, by their names in files."""
    set_columns: Mapping[str, Column] = field(default_factory=dict)
    """Columns of its values of a set, all pictures of a seed."""
    weights: str | None = None
    """The option that gives its weights; None if it needs none."""
    by_default: bool = True
    """Measured by `evaluate` unless metrics are named."""


def _twice(name: str, title: str, digits: int) -> dict[str, Column]:
    return {
        name: Column(title.format(""), digits),
        f"hole_{name}": Column(title.format(" in the hole"), digits),
    }


INCEPTION, LPIPS = "--fid-weights", "--lpips-weights"

METRICS = {
    "l1": Metric(_twice("l1_percent", "L1{}, %", 3)),
    "psnr": Metric(_twice("psnr_db", "PSNR{}, dB", 3)),
    "ssim": Metric(_twice("ssim", "SSIM{}", 4)),
    "ms_ssim": Metric(_twice("ms_ssim", "MS-SSIM{}", 4)),
    "vif": Metric({"vif": Column("VIF", 4)}),
    "sharpness": Metric(
        {"sharpness": Column("relative sharpness in the hole", 2)},
        by_default=False,
    ),
    "texture": Metric(
        set_columns={
            "swd_fine": Column("SWD fine", 2),
            "swd_coarse": Column("SWD coarse", 2),
            "grid": Column("grid", 3),
            "grid_photographs": Column("grid of the photographs", 3),
        }
    ),
    "lpips": Metric({"lpips": Column("LPIPS", 4)}, weights=LPIPS),
    "fid": Metric(weights=INCEPTION),
    "kid": Metric(
        set_columns={
            "kid": Column("KID", 5),
            "kid_deviation": Column("KID, deviation over subsets", 5),
        },
        weights=INCEPTION,
    ),
    "precision": Metric(
        set_columns={
            "precision": Column("precision", 3), "recall": Column("recall", 3),
        },
        weights=INCEPTION,
    ),
    "ids": Metric(
        set_columns={
            "p_ids_percent": Column("P-IDS, %", 2),
            "u_ids_percent": Column("U-IDS, %", 2),
            "p_ids_hinge_percent": Column("P-IDS by the plain hinge, %", 2),
            "u_ids_hinge_percent": Column("U-IDS by the plain hinge, %", 2),
        },
        weights=INCEPTION,
    ),
}  # fmt: skip
"""All metrics by name. `fid` is one number over all seeds, so it has no column."""
OF_FEATURES = tuple(n for n, metric in METRICS.items() if metric.weights == INCEPTION)
"""Metrics of the features of pictures, which are computed once for all of them."""
FEATURE_METRICS = "FID, KID, precision, recall, P-IDS and U-IDS"
"""Displayed names of OF_FEATURES."""
WITHOUT_WEIGHTS = tuple(n for n, metric in METRICS.items() if metric.weights is None)


def choose(
    names: Sequence[str] | None, weights: Sequence[str], *, protocol: str = ""
) -> tuple[str, ...]:
    """Returns the metrics to measure, in the order of METRICS.

    `names` come from the user or, if given, from `protocol`. None selects the default
    metrics for which there are `weights`, options like `--fid-weights`. PSNR is always
    included, because the sheet shows it. Raises UsageError for an unknown name, weights
    that are missing, and weights that no metric needs.
    """
    if names is None:
        chosen = {
            name for name, metric in METRICS.items()
            if metric.by_default and metric.weights in (None, *weights)
        }  # fmt: skip
    else:
        for name in names:
            if name not in METRICS:
                raise UsageError(
                    f"metric {name!r} is unknown.{did_you_mean(name, METRICS)} "
                    f"Known: {', '.join(METRICS)}."
                )
        if not names:
            raise UsageError(f"metrics must name at least one of {', '.join(METRICS)}.")
        chosen = {"psnr", *names}
    ordered = tuple(name for name in METRICS if name in chosen)
    needing = {
        option: [name for name in ordered if METRICS[name].weights == option]
        for option in (LPIPS, INCEPTION)
    }
    missing = {o: names for o, names in needing.items() if names and o not in weights}
    if missing:
        needs = (f"{o} FILE for {', '.join(users)}" for o, users in missing.items())
        raise UsageError(
            f"{f'--protocol {protocol}' if protocol else '--metrics'} needs "
            f"{' and '.join(needs)}; give that, or name other metrics with --metrics."
        )
    for option in weights:
        if not needing[option]:
            raise UsageError(
                f"{option} is used by none of the metrics {', '.join(ordered)}; leave it "
                "out."
            )
    return ordered


def skipped(names: Sequence[str]) -> list[str]:
    """Returns a line for each kind of weights that would add metrics to `names`."""
    options = {METRICS[name].weights for name in names}
    lines = ((LPIPS, "LPIPS"), (INCEPTION, FEATURE_METRICS))
    return [f"{t} skipped: give {o} FILE." for o, t in lines if o not in options]


def columns(names: Sequence[str]) -> dict[str, Column]:
    """Returns the columns of pictures, with the columns of holes at the end."""
    every = {k: c for name in names for k, c in METRICS[name].columns.items()}
    return dict(sorted(every.items(), key=lambda item: item[0].startswith("hole_")))


def set_columns(names: Sequence[str]) -> dict[str, Column]:
    """Returns the columns of sets of pictures."""
    return {k: c for name in names for k, c in METRICS[name].set_columns.items()}


def of_pictures(
    names: Sequence[str], images: Images, targets: Images, mask: Mask
) -> Values:
    """Returns the values of each picture by column, of the metrics without weights.

    Images have levels 0 to 255. A metric that needs larger images is NaN.
    """
    values: Values = {}
    for name in names:
        if name in PICTURES:
            values |= PICTURES[name](images, targets, mask)
    return values


def _in_and_out(
    name: str,
    metric: Callable[..., Float[Array, " b"]],
    images: Images,
    targets: Images,
    mask: Mask,
    *,
    smallest: int = 0,
    factor: float = 1.0,
) -> Values:
    """Returns a metric over the picture and over its hole."""
    values: Values = {}
    for place, weights in ((name, None), (f"hole_{name}", mask)):
        if min(images.shape[1:3]) < smallest:
            values[place] = jnp.full(len(images), jnp.nan, jnp.float32)
        else:
            values[place] = factor * metric(images, targets, weights, max_value=255.0)
    return values


def _vif(images: Images, targets: Images, mask: Mask) -> Values:
    del mask
    if min(images.shape[1:3]) < metrics.VIF_MIN_SIZE:
        return {"vif": jnp.full(len(images), jnp.nan, jnp.float32)}
    return {"vif": metrics.vif(images, targets, max_value=255.0)}


def _sharpness(images: Images, targets: Images, mask: Mask) -> Values:
    return {"sharpness": metrics.sharpness(images, targets, mask, max_value=255.0)}


PICTURES: dict[str, Callable[[Images, Images, Mask], Values]] = {
    "l1": partial(_in_and_out, "l1_percent", metrics.l1, factor=100.0),
    "psnr": partial(_in_and_out, "psnr_db", metrics.psnr),
    "ssim": partial(_in_and_out, "ssim", metrics.ssim),
    "ms_ssim": partial(
        _in_and_out, "ms_ssim", metrics.ms_ssim, smallest=metrics.MS_SSIM_MIN_SIZE
    ),
    "vif": _vif,
    "sharpness": _sharpness,
}
"""Metrics of pictures without weights, as functions of images, targets and masks."""


@cache
def operations(name: str, side: int) -> float:
    """Returns the floating-point operations of a metric of PICTURES on one picture."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, side, side, 1), jnp.bool_)
    return count(PICTURES[name], images, images, mask)


def count(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the floating-point operations of a function of arrays, without running it."""
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    # A metric without a value at this size has no operations.
    return float("nan") if analysis is None else float(analysis.get("flops", 0))
