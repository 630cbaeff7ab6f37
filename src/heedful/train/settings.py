"""The settings of a run: everything that decides it but its seed, and which of them go together."""

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from heedful.data.augment import check_names
from heedful.errors import InputError, unknown

Fraction = Annotated[float, Field(gt=0, lt=1)]
Portion = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]

CLASSIFICATION = "cross-entropy"
OBJECTIVES: dict[str, str | None] = {
    CLASSIFICATION: None,
    "icasc": "channel",
    "icasc-gradcam": "grad-cam",
    "icasc-gradcam++": "grad-cam++",
}
"""Name of an objective -> method of the class maps that it trains with, as in `heedful.attention_maps`; or None."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Settings:
    """Everything that decides a run but its seed. The defaults are those of [L], section 4.1, where it gives them.

    [W] is Wang et al., "Sharpen Focus", ICCV 2019, whose losses the objectives called icasc add (equation 6); [J] is
    Jetley et al., "Learn to pay attention", ICLR 2018.

    Args:
        task: `classification` of images, `clips`: classification of clips of one or more streams, or `detection`.
        variant: what is put into the network, in the notation of `heedful.variant`; of clips: how streams are fused.
        model: name, as for `heedful.build`; of clips such as `hcn+inertial`, see `heedful.models.build_streams`; of
            detection see `heedful.models.detection`.
        data: name, folder or .npz file, as for `heedful.data.load`; of clips see `heedful.data.clip_data`, of detection
            `heedful.data.boxes`.
        epochs: number of passes over the training images; [L]: 200 on CIFAR.
        batch_size: images a step; [L]: 128.
        optimizer: `sgd` or `adam`, which has PyTorch's defaults but for rate and decay.
        learning_rate: at the start; [L]: 0.1.
        warmup: steps in which the rate grows in equal parts to its start; detection is usually begun so.
        momentum: of SGD; [L]: 0.9.
        nesterov: whether the momentum is Nesterov's; the authors' ImageNet code.
        weight_decay: on kernels and matrices alone, not on biases and norms; [L]: 1e-4, its authors' code: 5e-4.
        decay_all: weight decay on biases and norms too, as in the code of [J] and of CBAM.
        schedule: `steps` divides the rate by 5 at 30, 60 and 80 % of the epochs ([L]: 60, 120, 160 of 200), `step10`
            by 10 at the milestones, `multiplied` multiplies it there by the factors; `cosine` lowers it epoch by epoch
            to 0, `annealed` step by step: the cosine annealing of Huang et al., "Snapshot ensembles", ICLR 2017,
            equation 2, with the one cycle of [W].
        milestones: of `step10` and `multiplied`: the numbers of epochs after which the rate changes, ascending.
        factors: of `multiplied`: what the rate is multiplied by at each milestone, or one factor for all.
        objective: a name in OBJECTIVES: `cross-entropy` (where an image may have several classes: the multi-label soft
            margin loss), or with it the attention losses of [W] on maps of its own method (`icasc`), of Grad-CAM or of
            Grad-CAM++.
        inner: of icasc: name of the layer of the inner maps; None: where the resolution is the second lowest.
        last: of icasc: name of the layer of the last maps; None: where the resolution is the lowest of 4 x 4 places.
        attention_weight: of icasc: of its three losses, or of each: separation at the inner layer, at the last layer,
            consistency; [W]: 1.
        start_epoch: of icasc: finished epochs before its losses count; [W]: 0.
        ramp: of icasc: epochs over which their weights then grow to the full; [W]: 0.
        first_order: of icasc: leave out the second derivatives, which cost time.
        augment: names in `heedful.data.augment.AUGMENTATIONS`, None: what suits the data set; of clips names in
            `heedful.data.clip_batches.AUGMENTATIONS`, None: window; of detection flip, which None is, too.
        image_size: side in pixels; None: the data's own, or what the network was made for.
        val_fraction: part of the images outside the test split on which the best epoch is chosen; [L]: 0.2 of CIFAR.
            Of clips see `heedful.data.clip_data.divide_clips`.
        limit: at most that many images outside the test split, or that part of them; of clips, of the training split
            alone; None: all.
        train_per_class: draw that many training images of each class; None: all that are left.
        test_per_class: draw that many test images of each class; None: the data's own test split, or a part.
        test_crops: 1, or 10 to test on four corners, the centre, and their mirror images; probabilities are averaged.
        start_from: of clips: names of earlier rows, whose networks of one stream each, of the same seed, those of this
            row begin with.
        drop: of clips: in training, the share of clips that lack one of their streams; see `heedful.TwoStream`.
        benchmark: of clips of NTU RGB+D: `cross-subject` or `cross-view`; None: the former.
        reduction: channels divided by the hidden width of the attention's MLPs; None: each layer's own.
        factor: of MMTM: what its weights are multiplied by; 1, or 2 as MMTM's authors have it.
        convention: whose `se` and `cbam`: see `heedful.layers.conventions`; None: the papers'.
        pretrained: start from timm's ImageNet weights; of clips with video from torchvision's of Kinetics-400, of
            detection from torchvision's of ImageNet, in the trunk.
        precision: 32, or bf16 or 16 for automatic mixed precision.
        compile: whether torch.compile is used; not with icasc.
        skip_bad_images: leave unreadable images out instead of stopping.
    """

    task: Literal["classification", "clips", "detection"] = "classification"
    variant: str = "none"
    model: str = "cifar_resnet8"
    data: str = "digits"
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    warmup: NonNegativeInt = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 1e-4
    decay_all: bool = False
    schedule: Literal["steps", "step10", "multiplied", "cosine", "annealed"] = "steps"
    milestones: tuple[PositiveInt, ...] = ()
    factors: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    objective: str = CLASSIFICATION
    inner: str | None = None
    last: str | None = None
    attention_weight: NonNegativeFloat | tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = 1.0
    start_epoch: NonNegativeInt = 0
    ramp: NonNegativeInt = 0
    first_order: bool = False
    augment: tuple[str, ...] | None = None
    image_size: PositiveInt | None = None
    val_fraction: Fraction = 0.1
    limit: Portion | None = None
    train_per_class: PositiveInt | None = None
    test_per_class: PositiveInt | None = None
    test_crops: Literal[1, 10] = 1
    start_from: tuple[str, ...] = ()
    drop: Annotated[float, Field(ge=0, le=1)] = 0.0
    benchmark: Literal["cross-subject", "cross-view"] | None = None
    reduction: PositiveInt | None = None
    factor: PositiveFloat = 1.0
    convention: Literal["paper", "laakom-code", "cbam-code", "timm"] | None = None
    pretrained: bool = False
    precision: Literal["32", "bf16", "16"] = "32"
    compile: bool = False
    skip_bad_images: bool = False


SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))

_OF_CLASSIFICATION = (
    "objective", "inner", "last", "attention_weight", "start_epoch", "ramp", "first_order", "train_per_class",
    "test_per_class", "test_crops", "compile",
)  # fmt: skip
TASKS_WITH = {
    **dict.fromkeys(_OF_CLASSIFICATION, ("classification",)),
    **dict.fromkeys(("start_from", "drop", "benchmark", "factor"), ("clips",)),
    **dict.fromkeys(("image_size", "skip_bad_images", "convention"), ("classification", "detection")),
}
"""Setting that not every task has -> those that have it."""


def check(settings: Settings) -> None:
    """Raise an InputError if a name is unknown, or settings contradict each other."""
    _check_task(settings)
    if settings.objective not in OBJECTIVES:
        raise unknown("objective", settings.objective, OBJECTIVES)
    if settings.compile and settings.objective != CLASSIFICATION:
        raise InputError(
            f"compile is true with the objective {settings.objective}: compiled networks cannot be differentiated "
            "twice; leave compile out"
        )
    if settings.objective != CLASSIFICATION and settings.start_epoch >= settings.epochs:
        raise InputError(
            f"start_epoch is {settings.start_epoch} with {settings.epochs} epochs, so that the attention losses would "
            "never count: lower it, or train for longer"
        )
    if (settings.inner is None) != (settings.last is None):
        raise InputError(f"inner is {settings.inner} and last is {settings.last}: name both layers, or neither")
    _check_milestones(settings)
    _check_factors(settings)


def _check_task(settings: Settings) -> None:
    if settings.task == "classification":
        check_names(settings.augment or ())
    for name, tasks in TASKS_WITH.items():
        value = getattr(settings, name)
        if settings.task not in tasks and value != getattr(Settings, name):
            raise InputError(f"{name} is {value!r}, but only the task {' or '.join(tasks)} has it: leave it out")


def shrunk(settings: Settings, factor: float) -> Settings:
    """Return the settings with epochs, what is counted in epochs, and images outside the test split multiplied."""
    per_class = settings.train_per_class
    epochs = max(1, round(settings.epochs * factor))
    milestones = _merged(settings, factor)
    return dataclasses.replace(
        settings,
        epochs=epochs,
        milestones=tuple(milestones),
        factors=tuple(milestones.values()) if settings.factors else (),
        start_epoch=min(round(settings.start_epoch * factor), epochs - 1),
        ramp=round(settings.ramp * factor),
        train_per_class=per_class and max(1, round(per_class * factor)),
        limit=settings.limit if per_class else _part(settings.limit, factor),
    )


def factor_of(settings: Settings, milestone: int) -> float:
    """Return what the learning rate is multiplied by at a milestone of the schedule `multiplied`."""
    if len(settings.factors) == 1:
        return settings.factors[0]
    return settings.factors[settings.milestones.index(milestone)]


def _merged(settings: Settings, factor: float) -> dict[int, float]:
    """Return the shrunk milestones and the factor at each: where several fall together, their product."""
    merged: dict[int, float] = {}
    for milestone in settings.milestones:
        place = max(1, round(milestone * factor))
        merged[place] = merged.get(place, 1.0) * (factor_of(settings, milestone) if settings.factors else 1.0)
    return merged


def _part(limit: float | int | None, factor: float) -> float | int:
    whole = 1.0 if limit is None else limit
    return max(1, round(whole * factor)) if isinstance(whole, int) else whole * factor


def _check_milestones(settings: Settings) -> None:
    given, schedule = list(settings.milestones), settings.schedule
    if (schedule in ("step10", "multiplied")) != bool(given):
        raise InputError(
            f"milestones is {given} with the schedule {schedule}: step10 and multiplied need them, such as [81, 122], "
            "and no other schedule has any"
        )
    if given != sorted(set(given)):
        raise InputError(f"milestones is {given}, but they must ascend, such as [81, 122]")


def _check_factors(settings: Settings) -> None:
    given, schedule, num_milestones = list(settings.factors), settings.schedule, len(settings.milestones)
    if (schedule == "multiplied") != bool(given):
        raise InputError(
            f"factors is {given} with the schedule {schedule}: multiplied needs them, such as [0.5], and no other "
            "schedule has any"
        )
    if given and len(given) not in (1, num_milestones):
        raise InputError(
            f"factors is {given}, which are {len(given)} for {num_milestones} milestones: give one for all, or one for "
            "each"
        )
