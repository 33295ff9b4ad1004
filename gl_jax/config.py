"""The configuration tree of a training run: what each number means and may be.

Only the standard library is imported here, so an experiment file answers `--help` at
once and a mistake is refused before JAX loads. Sizes are in pixels, steps are
completed updates, probabilities lie in [0, 1]. Values from the paper carry the
section of the paper, others the reason for them. The string below a field is its help.
"""

import dataclasses
import enum
import json
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from gl_jax.fields import Mark, Rule, Section, above, at_least, build, require, within
from gl_jax.fields import UsageError as UsageError
from gl_jax.fields import did_you_mean as did_you_mean
from gl_jax.fields import differences as differences

MAY_CHANGE = Mark.MAY_CHANGE
"""A resumed run may have another value: it does not change what is learned."""

GREY = (0.5, 0.5, 0.5)

Count = Annotated[int, at_least(1)]
Amount = Annotated[int, at_least(0)]


class Phase(enum.StrEnum):
    """The three phases of the paper's Algorithm 1."""

    COMPLETION = "completion"
    DISCRIMINATOR = "discriminator"
    JOINT = "joint"


def is_bucket(address: str) -> bool:
    """Returns whether this is a place in Google Cloud Storage and no file or folder."""
    return address.startswith("gs://")


@dataclass(frozen=True)
class ModelConfig(Section, prefix="model."):
    """The networks: by default exactly the paper's tables."""

    width: Annotated[float, within("(0, 8]")] = 1.0
    """Multiplies every hidden channel count.
    At 1.0 the completion network has 6,072,131 parameters, at 0.5 a quarter of them."""
    norm_order: Literal["norm_activation", "activation_norm"] = "norm_activation"
    """conv-BN-ReLU as in the authors' network, or conv-ReLU-BN as in GLCIC-PyTorch."""
    output_activation: Literal["sigmoid", "clamp", "signed_clamp"] = "sigmoid"
    """Range of the last layer: sigmoid (the paper) or clamp.
    `signed_clamp` clamps to [-1, 1] and maps that to [0, 1] (mmediting): 0 becomes grey,
    not black."""
    discriminators: Literal["both", "global", "local", "none"] = "both"
    """The discriminators of the joint phase (the paper's ablation).
    `none` trains with the masked MSE alone, for all of the steps."""
    discriminator_norm: Literal["batch", "none"] = "batch"
    """Batch normalisation of the discriminators (the paper), or none."""
    spectral_norm: bool = False
    """Divides each kernel of the discriminators by its largest singular value.
    Miyato et al. 2018; meant for `discriminator_norm none`."""
    batch_norm_momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Share of the running statistics kept at each step."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and products; parameters and statistics stay float32.
    bfloat16 halves the memory of activations and is faster on GPU and TPU."""
    rematerialize: bool = False
    """Recompute blocks in the backward pass: less memory, about a third more time."""


@dataclass(frozen=True)
class DataConfig(Section, prefix="data."):
    """The source of the photographs and the way they become training crops."""

    source: Annotated[str, Rule(bool, "a name or a folder")] = "bundled"
    """`bundled`, a folder (read recursively), or `tfds:NAME` (tfds:places365_small)."""
    data_dir: Annotated[str | None, MAY_CHANGE, Mark.PER_HOST] = None
    """Folder or bucket (gs://...) of the data that TFDS has prepared."""
    split: str = "train"
    """Split of a TFDS or bundled source; all of a folder is read."""
    validation_source: str | None = None
    """Photographs to validate on; by default some of `source`.
    A TFDS or bundled source gives its validation split.
    Of a folder a share is held back from training, chosen by the files' names."""
    validation_split: str = "validation"
    """Split of the validation source; all of a folder is read."""
    validation_share: Annotated[float, within("(0, 1)")] = 0.02
    """Share of a folder held back without a `validation_source`."""
    batch_size: Count = 96
    """Photographs per update, over all devices and hosts (paper: 96)."""
    image_size: Annotated[
        int,
        Rule(
            lambda size: size >= 16 and size % 4 == 0,
            "a multiple of 4 and at least 16: the network halves the image twice",
        ),
    ] = 256
    """Side in pixels of the square training crop (paper: 256)."""
    resize: tuple[int, int] = (256, 384)
    """The shortest side is resized to a length drawn from this range, in pixels.
    Both ends are included (paper: 256 384); the crop has to fit in."""
    mean_color: Annotated[
        tuple[float, float, float] | None,
        Rule(lambda rgb: all(0 <= c <= 1 for c in rgb), "three numbers in [0, 1]"),
    ] = None
    """RGB in [0, 1] that fills the hole; without it, the training set's mean."""
    encoding: Literal["centred", "plain", "mmediting"] = "centred"
    """Encoding of photographs for the networks; fine-tuning needs the encoding of its weights.
    `centred`: less the mean colour (the authors). `plain`: in [0, 1] as they are
    (GLCIC-PyTorch). `mmediting`: BGR in [-1, 1], the hole grey."""
    flip: bool = False
    """Mirror half of the crops; the paper states no augmentation."""
    color_jitter: Annotated[float, within("[0, 1)")] = 0.0
    """Largest relative change of brightness, contrast and saturation (paper: none)."""
    max_corrupt_share: Annotated[float, within("[0, 1]"), MAY_CHANGE] = 0.01
    """Training stops when a larger share of the photographs seen cannot be read."""
    workers: Annotated[Count | None, MAY_CHANGE, Mark.PER_HOST] = None
    """Threads that decode; by default one per processor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.resize
        require(
            self.image_size <= low <= high,
            "data.resize",
            self.resize,
            f"two sizes in order, at least data.image_size (={self.image_size}), "
            "so that the crop fits into the resized photograph",
        )
        require(
            self.encoding != "mmediting" or self.mean_color in (None, GREY),
            "data.mean_color",
            self.mean_color,
            "left out with data.encoding mmediting, whose holes are grey",
        )

    @property
    def hole_color(self) -> tuple[float, float, float] | None:
        """RGB that fills the hole; None if it is the training set's mean."""
        return GREY if self.encoding == "mmediting" else self.mean_color


@dataclass(frozen=True)
class HolesConfig(Section, prefix="holes."):
    """The hole in each training photograph and the local discriminator's window."""

    min_size: Count = 96
    """Smallest side of the hole in pixels (paper: 96).
    Width and height are drawn independently."""
    max_size: int = 128
    """Largest side of the hole in pixels (paper: 128); at most `local_size`."""
    local_size: Annotated[int, at_least(8)] = 128
    """Side in pixels of the local discriminator's window (paper: 128).
    It is centred on the hole, and shifted if it would leave the image."""
    max_count: Count = 1
    """Largest number of holes in a photograph; each number from 1 on is equally likely.
    All lie in one window, and may overlap."""
    shared_window: bool = False
    """Draw one window for the whole batch, and the holes anywhere in it (GLCIC-PyTorch).
    Photographs are shown in one window for the whole batch, too."""
    paired_windows: bool = False
    """Show the local discriminator photographs in the windows of their holes (mmediting).
    By default their windows are drawn independently, as if for other holes."""

    strokes: Annotated[float, within("[0, 1]")] = 0.0
    """Share of the photographs with a brush stroke instead of a rectangle.
    It lies inside the rectangle that was drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.min_size, self.local_size
        name, value = "holes.max_size", self.max_size
        require(value >= least, name, value, f"at least holes.min_size (={least})")
        require(
            value <= most,
            name,
            value,
            f"at most holes.local_size (={most}): "
            "the local discriminator has to see the whole hole",
        )


@dataclass(frozen=True)
class LossConfig(Section, prefix="loss."):
    """Equations 2 to 5 and the choices the paper leaves open."""

    alpha: Annotated[float, at_least(0)] = 4e-4
    """Weight of the adversarial loss beside the completion loss (paper: 0.0004).
    More gives sharper, less stable completions."""
    adversarial: Literal[
        "non_saturating",
        "saturating",
        "hinge",
        "least_squares",
        "wasserstein",
        "relativistic",
    ] = "non_saturating"
    """The game, both sides of it; `saturating` is Eq. 5 read literally.
    `non_saturating`, -log D(C(x)), does not fade when D wins."""
    completion: Literal["squared", "absolute"] = "squared"
    """The completion loss: squared error (Eq. 2) or absolute (mmediting)."""
    completion_weight: Annotated[float, above(0)] = 1.0
    """Weight of the completion loss."""
    joint_completion_weight: Annotated[float, above(0)] = 1.0
    """Scales the completion loss in the joint phase (GLCIC-PyTorch: 0.5)."""
    fakes: Literal["composite", "raw"] = "composite"
    """The fakes that the discriminators see: the photograph with its hole completed, or the
    network's whole output (GLCIC-PyTorch)."""
    feature_weight: Annotated[float, at_least(0)] = 0.0
    """Weight of feature matching beside the adversarial loss, under the same alpha.
    The discriminators' features of a completion should be those of its photograph."""
    r1: Annotated[float, at_least(0)] = 0.0
    """Gamma of R1: the discriminators' squared slope at photographs, halved, is penalised.
    It keeps them from winning; 0.5 to 10 are usual, with `penalty_every` 16 or less."""
    r2: Annotated[float, at_least(0)] = 0.0
    """Gamma of R2, the same at completions."""
    gradient_penalty: Annotated[float, at_least(0)] = 0.0
    """Weight of the penalty on slopes other than 1 between photographs and completions.
    Usual: 10, with `adversarial wasserstein`."""
    penalty_every: Count = 1
    """Steps between two penalties; each is multiplied by this number."""
    normalizer: Literal["image", "hole", "batch"] = "image"
    """Average the completion loss over all the image's pixels, or the hole's only.
    `batch` averages over the missing pixels of all the batch at once (mmediting)."""
    structure_weight: Annotated[float, at_least(0)] = 0.0
    """Weight of 1 - SSIM beside the completion loss (not in the paper).
    Completions meet the hole's rim more closely, for about the same squared error."""
    discriminator_weight: Annotated[float, above(0)] = 1.0
    """Scales the discriminator's loss; Eq. 4 read literally has alpha here."""
    joint_discriminator_weight: Annotated[float | None, above(0)] = None
    """The same for the joint phase; by default equal (GLCIC-PyTorch: alpha / 2)."""
    discriminator_noise: Annotated[float, at_least(0)] = 0.0
    """Standard deviation of normal noise on all that the discriminators see, pixels in [0, 1].
    On few photographs it keeps them from winning (Arjovsky and Bottou 2017, section 3)."""
    discriminator_noise_end: float | None = None
    """If set, the noise falls to this over the joint phase, by an equal share each step.
    Texture fainter than the noise is not learned, so fine texture comes with less of it."""
    adversarial_ratio: Annotated[float | None, above(0)] = None
    """If set, alpha follows the gradients instead of being constant.
    The adversarial gradient then has this share of the completion gradient's norm,
    both taken at the completed image (the paper's "more fine-grained control")."""

    def __post_init__(self) -> None:
        super().__post_init__()
        noise, end = self.discriminator_noise, self.discriminator_noise_end
        require(
            end is None or 0 < end <= noise,
            "loss.discriminator_noise_end",
            end,
            f"above 0 and at most loss.discriminator_noise (={noise})",
        )


@dataclass(frozen=True)
class AugmentConfig(Section, prefix="augment."):
    """Random changes of all that the discriminators see, photographs and fakes alike.

    DiffAugment (Zhao et al. 2020) with its probability, if wanted, led as in StyleGAN2-ADA.
    """

    color: bool = False
    """Brightness, saturation and contrast, alike in all views of an image."""
    translation: Annotated[float, within("[0, 0.5]")] = 0.0
    """Largest shift as a share of the view's side (DiffAugment: 0.125)."""
    cutout: Annotated[float, within("[0, 1]")] = 0.0
    """Side of a grey square as a share of the view's (DiffAugment: 0.5)."""
    adaptive_target: Annotated[float | None, within("[-1, 1]")] = None
    """If set, the probability of each change rises while the mean sign of photographs'
    logits is above this, and falls otherwise (StyleGAN2-ADA: 0.6). By default it is 1."""
    adaptive_images: Count = 500_000
    """Photographs over which that probability can move from 0 to 1."""

    @property
    def changes(self) -> bool:
        """Returns whether any change is chosen that a probability could be of."""
        return self.color or self.translation > 0 or self.cutout > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.adaptive_target is None or self.changes,
            "augment.adaptive_target",
            self.adaptive_target,
            "left out without augment.color, translation or cutout: "
            "there is nothing whose probability it would lead",
        )


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
class OptimizerConfig(Section, prefix="optimizer."):
    """One network's optimizer: one of optax's, by default the paper's Adadelta."""

    name: str = "adadelta"
    """A function of optax, for example adadelta, adam, adamw, lamb."""
    learning_rate: Annotated[float, above(0)] = 1.0
    """The peak learning rate; 1.0 is Adadelta as published.
    Adam and its relatives need about 0.0001 to 0.001, Muon about twice that."""
    options: dict[str, float] = field(default_factory=dict)
    """Further numbers for the optax function, as in `options.eps 1e-7`.
    Without them optax's own: for Adadelta rho 0.9 and eps 1e-6, as in Torch7.
    Naming another optimizer on the command line clears them."""
    warmup_steps: Amount = 0
    """The learning rate rises from 0 over this many of the network's own updates."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Decay of the learning rate from the end of the warm-up to the end of the run.
    With a `joint_learning_rate`: to the end of the phases before the joint one."""
    joint_learning_rate: Annotated[float | None, above(0)] = None
    """The peak in the joint phase; the first decay then ends where that phase begins.
    By default one decay goes through all phases."""
    clip_norm: Annotated[float | None, above(0)] = None
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
        super().__post_init__()


@dataclass(frozen=True)
class ScheduleConfig(Section, prefix="schedule."):
    """Algorithm 1: how many updates each phase takes."""

    completion_steps: Amount = 90_000
    """T_C: updates of the completion network alone, with the masked MSE."""
    discriminator_steps: Amount = 10_000
    """T_D: updates of the discriminators alone, the completion network frozen."""
    total_steps: Annotated[Count, MAY_CHANGE] = 500_000
    """T_train: all updates; those after the first two phases train both in turn."""
    discriminator_updates: Count = 1
    """Updates of the discriminators for one of the completion network in the joint phase."""

    def phase_at(self, step: int) -> Phase:
        """Returns the phase of the update that follows `step` completed ones."""
        if step < self.completion_steps:
            return Phase.COMPLETION
        if step < self.completion_steps + self.discriminator_steps:
            return Phase.DISCRIMINATOR
        return Phase.JOINT

    def update_at(self, step: int) -> Phase:
        """Returns the phase whose networks that update trains.

        In the joint phase it is that of the discriminators alone but every
        `discriminator_updates`-th time.
        """
        phase = self.phase_at(step)
        if phase is Phase.JOINT:
            done = step - self.completion_steps - self.discriminator_steps
            if (done + 1) % self.discriminator_updates:
                return Phase.DISCRIMINATOR
        return phase


Measure = Literal[
    "val_psnr", "val_l1", "val_swd_fine", "val_swd_coarse",
    "hole_psnr_db", "hole_ssim", "hole_ms_ssim", "hole_l1_percent",
    "psnr_db", "ssim", "ms_ssim", "l1_percent", "vif", "lpips", "swd_fine", "swd_coarse",
    "fid", "kid", "precision", "recall", "p_ids_percent", "u_ids_percent",
]  # fmt: skip
"""Measures of a checkpoint: `val_*` of a validation, the others of `gl-jax evaluate`."""
LESS_IS_BETTER = frozenset(
    "val_l1 val_swd_fine val_swd_coarse hole_l1_percent l1_percent lpips fid kid swd_fine "
    "swd_coarse".split()
)


@dataclass(frozen=True)
class RunConfig(Section, prefix="run."):
    """The run itself: seed, devices, and what is written when."""

    seed: Annotated[int, within("[0, 2147483647]")] = 0
    """Everything random follows from it: initial weights, order, crops, holes."""
    initial_weights: str | None = None
    """Begin with the networks of this file instead of random ones, to fine-tune them.
    A .safetensors file of `gl-jax export` or `convert`, or `demo`, the shipped model.
    It has to be there whenever the run is started, also to resume."""
    device_count: Annotated[Count | None, MAY_CHANGE] = None
    """Devices of each host to use; by default all of them."""
    accumulate: Count = 1
    """Number of pieces into which each device's share of the batch is split.
    The gradients are averaged over them: less memory, a little more time."""
    ema_decay: Annotated[float | None, within("(0, 1)")] = None
    """Keep a moving average of the completion network with this decay, say 0.999."""
    ema_ramp: Annotated[float | None, above(0)] = None
    """Largest half-life of that average, as a share of the steps so far.
    StyleGAN2-ADA: 0.05. By default the decay is at most (1 + n) / (10 + n) at step n."""
    log_every: Annotated[Count, MAY_CHANGE] = 50
    """Steps between lines of metrics.jsonl and points of TensorBoard."""
    save_every: Annotated[Count, MAY_CHANGE] = 1_000
    """Steps between checkpoints; the last step is always saved."""
    eval_every: Annotated[Count, MAY_CHANGE] = 1_000
    """Steps between validations: L1 and PSNR inside the holes."""
    sample_every: Annotated[Count, MAY_CHANGE] = 1_000
    """Steps between sheets of completed validation photographs and curves.png."""
    validation_images: Annotated[Count, MAY_CHANGE] = 32
    """Validation photographs, at most; the same ones with the same holes every time."""
    sample_images: Annotated[Count, MAY_CHANGE] = 4
    """Rows of a sample sheet, one photograph each."""
    checkpoints: Annotated[
        str | None,
        Rule(
            lambda place: is_bucket(place) or os.path.isabs(place),
            "a bucket (gs://bucket/run) or an absolute path",
        ),
        MAY_CHANGE,
    ] = None
    """Place of the checkpoints; by default into `checkpoints` in the workdir."""
    keep_newest: Annotated[Count, MAY_CHANGE] = 3
    """Number of the newest checkpoints that are kept."""
    keep_best: Annotated[Amount, MAY_CHANGE] = 1
    """Number of the best checkpoints that are kept beside the newest."""
    keep_best_by: Annotated[Measure, MAY_CHANGE] = "val_psnr"
    """The measure by which checkpoints are ranked.
    Names with `val_` are measures of the validation in the same step; all others come from
    `gl-jax evaluate --follow`, which has to measure a checkpoint before it is deleted."""
    keep_every: Annotated[Count | None, MAY_CHANGE] = None
    """Checkpoints at multiples of this many steps are kept for good."""
    max_failed_saves: Annotated[Count, MAY_CHANGE] = 3
    """Training stops when this many saves in a row have failed."""
    on_nan: Annotated[Literal["stop", "rollback"], MAY_CHANGE] = "stop"
    """Response to a loss that is not finite.
    `stop` ends the run, `rollback` returns to the last checkpoint with other holes."""
    max_rollbacks: Annotated[Amount, MAY_CHANGE] = 3
    """Rollbacks allowed in one run."""
    hang_limit: Annotated[float, above(0), MAY_CHANGE] = 1800.0
    """Seconds after which a step or a save that does not end is reported."""
    wandb: Annotated[str | None, MAY_CHANGE] = None
    """A project of Weights & Biases that gets what TensorBoard gets; by default none.
    Needs pip install '.[wandb]'. WANDB_MODE=offline keeps it on this machine."""
    profile_steps: Annotated[
        tuple[int, int] | None,
        Rule(lambda steps: 0 <= steps[0] <= steps[1], "two steps in order"),
        MAY_CHANGE,
    ] = None
    """First and last step of a profile, written into the workdir for TensorBoard."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.ema_ramp is None or self.ema_decay is not None,
            "run.ema_ramp",
            self.ema_ramp,
            "left out without run.ema_decay: there is no average that it could shorten",
        )


@dataclass(frozen=True)
class Config(Section):
    """One training run. The defaults are the paper's run on Places2."""

    name: str = "glcic"
    """Name of the experiment; a workdir belongs to one experiment."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    holes: HolesConfig = field(default_factory=HolesConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    completion_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        window, hole = self.holes.local_size, self.holes.max_size
        side, of = self.data.image_size, f"data.image_size (={self.data.image_size})"
        rule = f"at most {of}: the local window lies inside the image"
        require(window <= side, "holes.local_size", window, rule)
        rule = f"below {of}: something has to remain to complete from"
        require(hole < side, "holes.max_size", hole, rule)
        self._require_discriminators()
        for name, before in (
            ("completion_optimizer", self.schedule.completion_steps),
            ("discriminator_optimizer", self.schedule.discriminator_steps),
        ):
            optimizer: OptimizerConfig = getattr(self, name)
            require(
                optimizer.joint_learning_rate is None
                or optimizer.warmup_steps <= before,
                f"{name}.warmup_steps",
                optimizer.warmup_steps,
                f"at most {before} with a joint_learning_rate: "
                "so many updates come before the joint phase",
            )

    def _require_discriminators(self) -> None:
        """Refuses what only discriminators give a meaning, if there are none."""
        weight = self.loss.joint_discriminator_weight
        require(
            weight is None or self.schedule.discriminator_updates == 1,
            "loss.joint_discriminator_weight",
            weight,
            "left out with schedule.discriminator_updates above 1: the updates between "
            "those of the completion network have loss.discriminator_weight",
        )
        if self.model.discriminators != "none":
            return
        for section, names in (
            (self.holes, "paired_windows"),
            (self.loss, "r1 r2 gradient_penalty feature_weight discriminator_noise"),
            (self.augment, "color translation cutout"),
            (self.model, "spectral_norm"),
        ):
            for name in names.split():
                value = getattr(section, name)
                require(
                    not value,
                    section.prefix + name,
                    value,
                    "left out with model.discriminators none: "
                    "there is no discriminator that it could act on",
                )

    def phase_at(self, step: int) -> Phase:
        """Returns the phase of the update after `step`: without discriminators the first."""
        if self.model.discriminators == "none":
            return Phase.COMPLETION
        return self.schedule.phase_at(step)

    def update_at(self, step: int) -> Phase:
        """Returns the phase whose networks the update after `step` trains."""
        if self.model.discriminators == "none":
            return Phase.COMPLETION
        return self.schedule.update_at(step)

    def checkpoints_of(self, workdir: str | Path) -> str:
        """Returns the folder or bucket of the run's checkpoints."""
        return self.run.checkpoints or os.path.join(workdir, "checkpoints")

    def to_json(self) -> str:
        """Returns the tree as indented JSON, ending in a newline."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the tree written by `to_json`. A misfit raises UsageError."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"the configuration is not JSON: {error}") from error
        return typing.cast(Self, build(cls, values, ""))
