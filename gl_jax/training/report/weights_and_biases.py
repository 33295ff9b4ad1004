"""The same values as TensorBoard's, at Weights & Biases; only if `run.wandb` asks for it."""

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gl_jax.config import Config, UsageError


def require_wandb() -> None:
    """Raises UsageError if the library of Weights & Biases is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UsageError(
            "run.wandb needs the library of Weights & Biases: pip install '.[wandb]'."
        )


class WeightsAndBiases:
    """One run of a project there, the same in all lives of a training run."""

    def __init__(self, workdir: Path, config: Config, started: float) -> None:
        """Begins or resumes the run; UsageError if the service refuses.

        `started` is the Unix time of the first start, by which the run is known again.
        Files go into `wandb` in the workdir. WANDB_MODE=offline asks no network.
        """
        import wandb

        seed = f"{config.name} {started}".encode()
        try:
            self._run = wandb.init(
                project=config.run.wandb,
                name=config.name,
                id=hashlib.sha256(seed).hexdigest()[:16],
                resume="allow",
                dir=workdir,
                config=json.loads(config.to_json()),
                settings=wandb.Settings(silent=True, console="off"),
            )
            # A resumed run goes back to its checkpoint, and wandb's own step cannot.
            self._run.define_metric("*", step_metric="step")
        except (wandb.Error, OSError) as error:
            raise UsageError(
                f"run.wandb (={config.run.wandb!r}): Weights & Biases cannot begin: "
                f"{_one_line(error)}. Log in (wandb login), set "
                "WANDB_MODE=offline, or leave run.wandb out."
            ) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values by their tags; OSError if that fails."""
        self._log({"step": step, **values})

    def image(self, step: int, tag: str, png: Path) -> None:
        """Logs the picture of a file; OSError if that fails."""
        import wandb

        self._log({"step": step, tag: wandb.Image(str(png))})

    def close(self) -> None:
        """Sends what is left and ends."""
        with contextlib.suppress(OSError), _as_os_error():
            self._run.finish()

    def _log(self, values: dict[str, Any]) -> None:
        with _as_os_error():
            self._run.log(values)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise OSError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
