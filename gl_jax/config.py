"""The configuration tree of a training run: what each number means and may be.

Only the standard library is imported here, so an experiment file answers `--help` at
once and a mistake is refused before JAX loads. Sizes are in pixels, steps are
completed updates, probabilities lie in [0, 1]. Values from the paper carry the
section of the paper, others the reason for them.
"""

import dataclasses
import difflib
import enum
import json
import math
import os
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self


class UsageError(ValueError):
    """A mistake of the caller's: shown as one line, exit code 2, no traceback."""


class Phase(enum.StrEnum):
    """The three phases of the paper's Algorithm 1."""

    COMPLETION = "completion"
    DISCRIMINATOR = "discriminator"
    JOINT = "joint"


def _require(rule: bool, name: str, value: object, expected: str) -> None:
    if not rule:
        raise UsageError(f"{name} (={value}) must be {expected}.")


@dataclass(frozen=True)
class ModelConfig:
    """The networks: by default exactly the paper's tables."""

    width: float = 1.0
    """Multiplies every hidden channel count; above 0, at most 8.
    At 1.0 the completion network has 6,072,131 parameters, at 0.5 a quarter of them."""
    norm_order: Literal["norm_activation", "activation_norm"] = "norm_activation"
    """conv-BN-ReLU as in the authors' network, or conv-ReLU-BN as in GLCIC-PyTorch."""
    output_activation: Literal["sigmoid", "clamp"] = "sigmoid"
    """How the last layer reaches [0, 1]: sigmoid (the paper) or clamp (mmediting)."""
    discriminators: Literal["both", "global", "local", "none"] = "both"
    """Which judges the joint phase has (the paper's ablation).
    `none` trains with the masked MSE alone, for all of the steps."""
    batch_norm_momentum: float = 0.9
    """Share of the running statistics kept at each step; from 0, below 1."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and products; parameters and statistics stay float32.
    bfloat16 halves the memory of activations and is faster on GPU and TPU."""
    rematerialize: bool = False
    """Recompute blocks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        _require(0 < self.width <= 8, "model.width", self.width, "in (0, 8]")
        momentum = self.batch_norm_momentum
        _require(0 <= momentum < 1, "model.batch_norm_momentum", momentum, "in [0, 1)")


@dataclass(frozen=True)
class DataConfig:
    """Where the photographs come from and how they become training crops."""

    source: str = "bundled"
    """`bundled`, a folder (read recursively), or `tfds:NAME` (tfds:places365_small)."""
    data_dir: str | None = None
    """Where TFDS keeps prepared data: a folder or a bucket (gs://...)."""
    split: str = "train"
    """Split of a TFDS or bundled source; a folder is read whole."""
    validation_source: str | None = None
    """Photographs to validate on; by default some of `source`.
    Of a TFDS or bundled source its validation split is taken.
    Of a folder a share is held back from training, chosen by the files' names."""
    validation_split: str = "validation"
    """Split of the validation source; a folder is read whole."""
    validation_share: float = 0.02
    """Share of a folder held back without a `validation_source`; between 0 and 1."""
    batch_size: int = 96
    """Photographs per update, over all devices and hosts (paper: 96)."""
    image_size: int = 256
    """Side in pixels of the square training crop (paper: 256); a multiple of 4."""
    resize: tuple[int, int] = (256, 384)
    """The shortest side is resized to a length drawn from this range, in pixels.
    Both ends are included (paper: 256 384); the crop has to fit in."""
    mean_color: tuple[float, float, float] | None = None
    """RGB in [0, 1] that fills the hole; without it, the training set's mean."""
    flip: bool = False
    """Mirror half of the crops; the paper states no augmentation."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation.
    From 0 (none, as in the paper) to below 1."""
    max_corrupt_share: float = 0.01
    """Training stops when a larger share of the photographs seen cannot be read."""
    workers: int | None = None
    """Threads that decode; by default one per processor."""

    def __post_init__(self) -> None:
        _require(
            bool(self.source), "data.source", repr(self.source), "a name or a folder"
        )
        _require(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        _require(
            self.image_size >= 16 and self.image_size % 4 == 0,
            "data.image_size",
            self.image_size,
            "a multiple of 4 and at least 16: the network halves the image twice",
        )
        low, high = self.resize
        _require(
            self.image_size <= low <= high,
            "data.resize",
            self.resize,
            f"two sizes in order, at least data.image_size (={self.image_size}), "
            "so that the crop fits into the resized photograph",
        )
        if self.mean_color is not None:
            inside = all(0 <= channel <= 1 for channel in self.mean_color)
            _require(
                inside, "data.mean_color", self.mean_color, "three numbers in [0, 1]"
            )
        _require(
            0 < self.validation_share < 1,
            "data.validation_share",
            self.validation_share,
            "between 0 and 1",
        )
        _require(
            0 <= self.color_jitter < 1,
            "data.color_jitter",
            self.color_jitter,
            "in [0, 1)",
        )
        share = self.max_corrupt_share
        _require(0 <= share <= 1, "data.max_corrupt_share", share, "in [0, 1]")
        workers = self.workers
        _require(workers is None or workers >= 1, "data.workers", workers, "at least 1")


@dataclass(frozen=True)
class HolesConfig:
    """The hole in each training photograph and the local discriminator's window."""

    min_size: int = 96
    """Smallest side of the hole in pixels (paper: 96).
    Width and height are drawn independently."""
    max_size: int = 128
    """Largest side of the hole in pixels (paper: 128); at most `local_size`."""
    local_size: int = 128
    """Side in pixels of the local discriminator's window (paper: 128).
    It is centred on the hole, and shifted where it would leave the image."""

    def __post_init__(self) -> None:
        _require(self.min_size >= 1, "holes.min_size", self.min_size, "at least 1")
        _require(
            self.max_size >= self.min_size,
            "holes.max_size",
            self.max_size,
            f"at least holes.min_size (={self.min_size})",
        )
        _require(
            self.max_size <= self.local_size,
            "holes.max_size",
            self.max_size,
            f"at most holes.local_size (={self.local_size}): "
            "the local discriminator has to see the whole hole",
        )
        _require(
            self.local_size >= 8, "holes.local_size", self.local_size, "at least 8"
        )


@dataclass(frozen=True)
class LossConfig:
    """Equations 2 to 5 and the choices the paper leaves open."""

    alpha: float = 4e-4
    """Weight of the adversarial loss beside the completion loss (paper: 0.0004).
    More gives sharper, less stable completions."""
    adversarial: Literal["non_saturating", "saturating"] = "non_saturating"
    """-log D(C(x)), which does not fade when D wins, or Eq. 5's log(1 - D(C(x)))."""
    normalizer: Literal["image", "hole"] = "image"
    """Average the squared error over all the image's pixels, or the hole's only."""
    structure_weight: float = 0.0
    """Weight of 1 - SSIM beside the completion loss (not in the paper).
    Completions meet the hole's rim more closely, for about the same squared error."""
    discriminator_weight: float = 1.0
    """Scales the discriminator's loss; Eq. 4 read literally has alpha here."""
    discriminator_noise: float = 0.0
    """Standard deviation of normal noise on all that the discriminators see, pixels in [0, 1].
    On few photographs it keeps them from winning (Arjovsky and Bottou 2017, section 3)."""
    discriminator_noise_end: float | None = None
    """If set, the noise falls to this over the joint phase, by an equal share each step.
    What is fainter than the noise cannot be asked for: fine texture comes with less."""
    adversarial_ratio: float | None = None
    """If set, alpha follows the gradients instead of being constant.
    The adversarial gradient then has this share of the completion gradient's norm,
    both taken at the completed image (the paper's "more fine-grained control")."""

    def __post_init__(self) -> None:
        _require(self.alpha >= 0, "loss.alpha", self.alpha, "at least 0")
        structure = self.structure_weight
        _require(structure >= 0, "loss.structure_weight", structure, "at least 0")
        weight = self.discriminator_weight
        _require(weight > 0, "loss.discriminator_weight", weight, "above 0")
        noise = self.discriminator_noise
        _require(noise >= 0, "loss.discriminator_noise", noise, "at least 0")
        end = self.discriminator_noise_end
        _require(
            end is None or 0 < end <= noise,
            "loss.discriminator_noise_end",
            end,
            f"above 0 and at most loss.discriminator_noise (={noise})",
        )
        ratio = self.adversarial_ratio
        _require(ratio is None or ratio > 0, "loss.adversarial_ratio", ratio, "above 0")


# The optax optimizers that take a schedule and need no more than gradients, each with its
# options that are numbers. Written here so that a typo is refused before JAX loads; a
# test compares the table with optax.
OPTIMIZERS: dict[str, str] = {
    "adabelief": "b1 b2 eps eps_root nesterov",
    "adadelta": "rho eps weight_decay",
    "adagrad": "initial_accumulator_value eps",
    "adam": "b1 b2 eps eps_root nesterov",
    "adamax": "b1 b2 eps",
    "adamaxw": "b1 b2 eps weight_decay",
    "adamw": "b1 b2 eps eps_root weight_decay nesterov",
    "adan": "b1 b2 b3 eps eps_root weight_decay",
    "amsgrad": "b1 b2 eps eps_root",
    "fromage": "min_norm",
    "lamb": "b1 b2 eps eps_root weight_decay",
    "lars": "weight_decay trust_coefficient eps momentum nesterov",
    "lion": "b1 b2 weight_decay",
    "muon": "beta eps weight_decay adam_b1 adam_b2 adam_eps_root adam_weight_decay",
    "nadam": "b1 b2 eps eps_root nesterov",
    "nadamw": "b1 b2 eps eps_root weight_decay nesterov",
    "novograd": "b1 b2 eps eps_root weight_decay",
    "radam": "b1 b2 eps eps_root threshold nesterov",
    "rmsprop": "decay eps initial_scale momentum centered nesterov",
    "sgd": "momentum nesterov",
    "sign_sgd": "",
    "yogi": "b1 b2 eps",
}


@dataclass(frozen=True)
class OptimizerConfig:
    """One network's optimizer: one of optax's, by default the paper's Adadelta."""

    name: str = "adadelta"
    """A function of optax, for example adadelta, adam, adamw, lamb."""
    learning_rate: float = 1.0
    """Above 0; Adadelta as published has none, which is 1.0.
    Adam and its relatives want about 0.0001 to 0.001, Muon about twice that."""
    options: dict[str, float] = field(default_factory=dict)
    """Further numbers for the optax function, as in `options.eps 1e-7`.
    Without them optax's own: for Adadelta rho 0.9 and eps 1e-6, as in Torch7.
    Naming another optimizer on the command line clears them."""
    warmup_steps: int = 0
    """The learning rate rises from 0 over this many of the network's own updates."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate falls from the end of the warm-up to the end of the run.
    With a `joint_learning_rate`: to the end of the phases before the joint one."""
    joint_learning_rate: float | None = None
    """The peak in the joint phase; the first decay then ends where that phase begins.
    By default one decay goes through all phases."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; larger ones are scaled down to it."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise UsageError(
                f"optimizer.name (={self.name!r}) is unknown."
                f"{did_you_mean(self.name, OPTIMIZERS)} "
                f"Known: {', '.join(OPTIMIZERS)}."
            )
        known = OPTIMIZERS[self.name].split()
        for option in self.options:
            if option not in known:
                raise UsageError(
                    f"optimizer.options.{option} is no option of {self.name}."
                    f"{did_you_mean(option, known)} "
                    f"It has: {', '.join(known) or 'none'}."
                )
        rate, norm = self.learning_rate, self.clip_norm
        _require(rate > 0, "optimizer.learning_rate", rate, "above 0")
        joint = self.joint_learning_rate
        _require(
            joint is None or joint > 0,
            "optimizer.joint_learning_rate",
            joint,
            "above 0",
        )
        warmup = self.warmup_steps
        _require(warmup >= 0, "optimizer.warmup_steps", warmup, "at least 0")
        _require(norm is None or norm > 0, "optimizer.clip_norm", norm, "above 0")


@dataclass(frozen=True)
class ScheduleConfig:
    """Algorithm 1: how many updates each phase takes."""

    completion_steps: int = 90_000
    """T_C: updates of the completion network alone, with the masked MSE."""
    discriminator_steps: int = 10_000
    """T_D: updates of the discriminators alone, the completion network frozen."""
    total_steps: int = 500_000
    """T_train: all updates; those after the first two phases train both in turn."""

    def __post_init__(self) -> None:
        for name in ("completion_steps", "discriminator_steps"):
            value = getattr(self, name)
            _require(value >= 0, f"schedule.{name}", value, "at least 0")
        _require(
            self.total_steps >= 1,
            "schedule.total_steps",
            self.total_steps,
            "at least 1",
        )

    def phase_at(self, step: int) -> Phase:
        """The phase of the update that follows `step` completed ones."""
        if step < self.completion_steps:
            return Phase.COMPLETION
        if step < self.completion_steps + self.discriminator_steps:
            return Phase.DISCRIMINATOR
        return Phase.JOINT


@dataclass(frozen=True)
class RunConfig:
    """The run itself: seed, devices, and what is written when."""

    seed: int = 0
    """Everything random follows from it: initial weights, order, crops, holes.
    From 0 to 2147483647."""
    initial_weights: str | None = None
    """Begin with the networks of this file instead of random ones, to fine-tune them.
    A .safetensors file of `gl-jax export` or `convert`, or `demo`, the shipped model.
    It has to be there whenever the run is started, also to resume."""
    device_count: int | None = None
    """Devices of each host to use; by default all of them."""
    accumulate: int = 1
    """Pieces that each device's share of the batch is worked off in.
    The gradients are averaged over them: less memory, a little more time."""
    ema_decay: float | None = None
    """Keep a moving average of the completion network with this decay, say 0.999."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl and points of TensorBoard."""
    save_every: int = 1_000
    """Steps between checkpoints; the last step is always saved."""
    eval_every: int = 1_000
    """Steps between validations: L1 and PSNR inside the holes."""
    sample_every: int = 1_000
    """Steps between sheets of completed validation photographs and curves.png."""
    validation_images: int = 32
    """Validation photographs, at most; the same ones with the same holes every time."""
    sample_images: int = 4
    """Rows of a sample sheet, one photograph each."""
    checkpoints: str | None = None
    """Where the checkpoints go: a bucket (gs://bucket/run) or an absolute folder.
    By default into `checkpoints` in the workdir."""
    keep_newest: int = 3
    """How many of the newest checkpoints are kept."""
    keep_best: int = 1
    """How many checkpoints are kept for their validation PSNR, beside the newest."""
    keep_every: int | None = None
    """Checkpoints at multiples of this many steps are kept for good."""
    max_failed_saves: int = 3
    """Training stops when this many saves in a row have failed."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """What a loss that is not finite does.
    `stop` ends the run, `rollback` returns to the last checkpoint with other holes."""
    max_rollbacks: int = 3
    """Rollbacks allowed in one run."""
    hang_limit: float = 1800.0
    """Seconds after which a step or a save that does not end is reported; above 0."""
    profile_steps: tuple[int, int] | None = None
    """First and last step of a profile, written into the workdir for TensorBoard."""

    def __post_init__(self) -> None:
        at_least_one = (
            "accumulate log_every save_every eval_every sample_every validation_images "
            "sample_images keep_newest max_failed_saves"
        )
        for name in at_least_one.split():
            value = getattr(self, name)
            _require(value >= 1, f"run.{name}", value, "at least 1")
        there = self.checkpoints
        _require(
            there is None or is_bucket(there) or os.path.isabs(there),
            "run.checkpoints",
            there,
            "a bucket (gs://bucket/run) or a folder's whole path from /",
        )
        for name in ("keep_best", "max_rollbacks"):
            value = getattr(self, name)
            _require(value >= 0, f"run.{name}", value, "at least 0")
        _require(0 <= self.seed < 2**31, "run.seed", self.seed, "in [0, 2**31)")
        count = self.device_count
        _require(count is None or count >= 1, "run.device_count", count, "at least 1")
        decay = self.ema_decay
        _require(
            decay is None or 0 < decay < 1, "run.ema_decay", decay, "between 0 and 1"
        )
        every = self.keep_every
        _require(every is None or every >= 1, "run.keep_every", every, "at least 1")
        _require(self.hang_limit > 0, "run.hang_limit", self.hang_limit, "above 0")
        steps = self.profile_steps
        ordered = steps is None or 0 <= steps[0] <= steps[1]
        _require(ordered, "run.profile_steps", steps, "two steps in order")


@dataclass(frozen=True)
class Config:
    """One training run. The defaults are the paper's run on Places2."""

    name: str = "glcic"
    """Name of the experiment; a workdir belongs to one experiment."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    holes: HolesConfig = field(default_factory=HolesConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    completion_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _require(
            self.holes.local_size <= self.data.image_size,
            "holes.local_size",
            self.holes.local_size,
            f"at most data.image_size (={self.data.image_size}): "
            "the local window lies inside the image",
        )
        _require(
            self.holes.max_size < self.data.image_size,
            "holes.max_size",
            self.holes.max_size,
            f"below data.image_size (={self.data.image_size}): "
            "something has to remain to complete from",
        )
        for name, before in (
            ("completion_optimizer", self.schedule.completion_steps),
            ("discriminator_optimizer", self.schedule.discriminator_steps),
        ):
            optimizer: OptimizerConfig = getattr(self, name)
            _require(
                optimizer.joint_learning_rate is None
                or optimizer.warmup_steps <= before,
                f"{name}.warmup_steps",
                optimizer.warmup_steps,
                f"at most {before} with a joint_learning_rate: "
                "so many updates come before the joint phase",
            )

    def phase_at(self, step: int) -> Phase:
        """The phase of the update after `step`; without discriminators the first."""
        if self.model.discriminators == "none":
            return Phase.COMPLETION
        return self.schedule.phase_at(step)

    def checkpoints_of(self, workdir: str | Path) -> str:
        """The folder or bucket of the run's checkpoints: `run.checkpoints`, or inside."""
        return self.run.checkpoints or os.path.join(workdir, "checkpoints")

    def to_json(self) -> str:
        """The whole tree as indented JSON, ending in a newline."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The tree written by `to_json`. A misfit raises UsageError."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"the configuration is not JSON: {error}") from error
        return typing.cast(Self, build(cls, values, ""))


def is_bucket(address: str) -> bool:
    """Whether this is a place in Google Cloud Storage and no file or folder."""
    return address.startswith("gs://")


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """The sentence that names the nearest known word, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def values_by_name(config: Config) -> dict[str, Any]:
    """Every value of the tree by its dotted name, as JSON would give it back."""
    return _flat(dataclasses.asdict(config))


def differences(ours: Config, theirs: Config) -> Iterator[tuple[str, Any, Any]]:
    """Every field in which two trees differ, as (dotted name, ours, theirs)."""
    mine, other = values_by_name(ours), values_by_name(theirs)
    for name in mine | other:
        if mine.get(name) != other.get(name):
            yield name, mine.get(name), other.get(name)


def override(config: Config, changes: dict[str, list[str]]) -> Config:
    """`config` with fields replaced by words of the command line.

    `changes` maps dotted names, in kebab or snake case, to the words that follow them:
    {"data.resize": ["96", "128"]}. A switch needs no word, "none" empties a field that
    may be empty, an option of an optimizer is named in full ("...options.b1").
    Raises UsageError for an unknown name, a wrong number of words, and whatever the
    tree itself refuses.
    """
    tree = dataclasses.asdict(config)
    fields = field_names(Config)
    named = {name.replace("-", "_"): words for name, words in changes.items()}
    for name in named:
        section, _, last = name.rpartition(".")
        if last == "name" and section:
            # The options of one optimizer mean nothing to another.
            tree[section]["options"] = {}
    for name, words in named.items():
        mapping, dot, key = name.rpartition(".options.")
        if dot and f"{mapping}.options" in fields:
            tree[mapping]["options"][key] = _read(float, words, name)
        elif name in fields:
            *sections, last = name.split(".")
            place = tree[sections[0]] if sections else tree
            place[last] = _read(fields[name], words, name)
        else:
            flag = name.replace("_", "-")
            known = [field.replace("_", "-") for field in fields]
            raise UsageError(f"unknown option --{flag}.{suggest_option(flag, known)}")
    return typing.cast(Config, build(Config, tree, ""))


def field_names(cls: type, prefix: str = "") -> dict[str, Any]:
    """The dotted name of every field of a tree of dataclasses, and its type."""
    names: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            names |= field_names(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            names[prefix + name] = hint
    return names


def suggest_option(flag: str, known: typing.Iterable[str]) -> str:
    """`did_you_mean` for an option of the command line, its section perhaps missing."""
    names = list(known)
    endings = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = difflib.get_close_matches(flag, names, n=1, cutoff=0.8)
    if not near:
        ending = flag.rpartition(".")[2]
        near = [endings[e] for e in difflib.get_close_matches(ending, endings, n=1)]
    return f" Did you mean --{near[0]}?" if near else ""


def describe(hint: Any) -> str:
    """What a field or an option of this type takes, in words."""
    inner, optional = _optional(hint)
    arguments = typing.get_args(inner)
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    if typing.get_origin(inner) is Literal:
        kind = f"one of {', '.join(arguments)}"
    elif typing.get_origin(inner) is tuple:
        whole = "whole numbers" if arguments[0] is int else "numbers"
        kind = f"{len(arguments)} {whole}"
    else:
        kind = words.get(inner, "names with numbers")
    return f"{kind}, or none" if optional else kind


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def build(cls: type, values: Any, path: str) -> Any:
    """A dataclass from what JSON holds of it; `path` leads the names in errors.

    Raises UsageError for a field that is unknown or of another type.
    """
    if not isinstance(values, dict):
        raise UsageError(
            f"{path or 'the configuration'} (={values!r}) must be an object."
        )
    hints = typing.get_type_hints(cls)
    built = {}
    for name, value in values.items():
        if name not in hints:
            raise UsageError(f"unknown field {path}{name}.{did_you_mean(name, hints)}")
        built[name] = _convert(hints[name], value, f"{path}{name}")
    try:
        return cls(**built)
    except UsageError as error:
        # An optimizer does not know which of the two it is.
        message = str(error)
        if cls is OptimizerConfig and message.startswith("optimizer."):
            message = path + message.removeprefix("optimizer.")
        raise UsageError(message) from None


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` from JSON as `hint` wants it: lists for tuples, 1 for 1.0."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, f"{path}.")
    inner, optional = _optional(hint)
    if value is None and optional:
        return None
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    fits = False
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        if isinstance(value, list | tuple) and len(value) == len(arguments):
            return tuple(
                _convert(a, v, path) for a, v in zip(arguments, value, strict=True)
            )
    elif origin is dict:
        if isinstance(value, dict):
            return {
                k: _convert(arguments[1], v, f"{path}.{k}") for k, v in value.items()
            }
    elif inner is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value)
            fits = math.isfinite(value)
    else:
        fits = type(value) is inner
    if not fits:
        near = ""
        if origin is Literal and isinstance(value, str):
            near = did_you_mean(value, arguments)
        raise UsageError(f"{path} (={value!r}) must be {describe(hint)}.{near}")
    return value


def _read(hint: Any, words: list[str], path: str) -> Any:
    """The words as `_convert` wants them; a word that does not fit is left as it is."""
    inner, optional = _optional(hint)
    if optional and [word.lower() for word in words] == ["none"]:
        return None
    if inner is bool and not words:
        return True
    count = len(typing.get_args(inner)) if typing.get_origin(inner) is tuple else 1
    if typing.get_origin(inner) is dict:
        if len(words) % 2:
            raise UsageError(
                f"{path} takes pairs of a name and a number, as in b1 0.5."
            )
        return {
            name: _scalar(word) for name, word in zip(*[iter(words)] * 2, strict=True)
        }
    if len(words) != count:
        given = f"not {len(words)}: {' '.join(words)}" if words else "and got none"
        raise UsageError(f"{path} takes {describe(hint)}, {given}.")
    if count > 1:
        return [_scalar(word) for word in words]
    text = inner is str or typing.get_origin(inner) is Literal
    return words[0] if text else _scalar(words[0])


def _scalar(word: str) -> bool | int | float | str:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def _optional(hint: Any) -> tuple[Any, bool]:
    """The type without None, and whether None is allowed."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    (inner,) = [a for a in typing.get_args(hint) if a is not types.NoneType]
    return inner, True
