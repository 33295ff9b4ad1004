"""The standing of a run for its operator, from the files of its folder alone."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gl_jax.config import UsageError
from gl_jax.experiment import read_config
from gl_jax.training.report.log import METRICS, evaluations_by_step, read_metrics
from gl_jax.training.report.screen import duration
from gl_jax.training.workdir import read_status


def describe(workdir: Path) -> str:
    """Returns a run's status, its last lines, and how it has used its time, as text.

    Raises UsageError if the folder has no config.json.
    """
    if not (workdir / "config.json").is_file():
        raise UsageError(f"{workdir} is no folder of a training run: no config.json.")
    config, status = read_config(workdir / "config.json"), read_status(workdir)
    total = f"{config.schedule.total_steps:,}"
    lines = [f"run        {config.name} in {workdir}"]
    reason = f" ({status['reason']})" if status.get("reason") else ""
    lines.append(f"status     {status.get('status', 'not known')}{reason}")
    saved = status.get("last_step")
    lines.append(f"checkpoint {f'step {saved:,} of {total}' if saved else 'none yet'}")
    log = read_metrics(workdir / METRICS)
    trained = [record for record in log if "order_hash" in record]
    validated = [record for record in log if "val_psnr" in record]
    for name, records in (("training", trained), ("validation", validated)):
        if records:
            lines.append(f"{name:<11}{_line(records[-1])}")
    evaluations = evaluations_by_step(workdir)
    if evaluations:
        lines.append(f"evaluation {_line(evaluations[max(evaluations)])}")
    if trained:
        lines += _time(trained, status.get("started"))
    return "\n".join(lines)


def _line(record: Mapping[str, Any]) -> str:
    """The step and its values of quality; the machine's follow on lines of their own."""
    shown = ("_loss", "_psnr", "_psnr_db", "_l1", "_ssim", "lpips", "fid")
    values = [f"{k} {v:.4g}" for k, v in record.items() if k.endswith(shown) and v]
    return f"step {record['step']:,}, {record['phase']}: {', '.join(values)}"


def _time(trained: list[dict[str, Any]], started: float | None) -> list[str]:
    """The last line's use of the time; a line that compiled has no pace."""
    last, lines = trained[-1], []
    paced = [record for record in trained if "data_seconds" in record]
    if paced:
        parts = {
            name: paced[-1][f"{name}_seconds"] for name in ("data", "device", "host")
        }
        each = ", ".join(f"{name} {value:.2g}" for name, value in parts.items())
        speed = f"{paced[-1]['images_per_second']:,.4g} images/s"
        lines.append(f"a step     {sum(parts.values()):.3g} s ({each}), {speed}")
    if "mfu" in last:
        lines.append(f"mfu        {last['mfu']:.1%} of the devices' peak")
    if "peak_memory_bytes" in last:
        lines.append(f"memory     {last['peak_memory_bytes'] / 1e9:.3g} GB of a device")
    if "goodput" in last and started is not None:
        span = duration(last["time"] - started)
        ago = duration(max(0.0, time.time() - last["time"]))
        lines.append(
            f"goodput    {last['goodput']:.1%} of the {span} from the first start to the "
            f"last line, {ago} ago"
        )
    return lines
