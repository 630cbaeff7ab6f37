"""Commands that train and compare: compare, run, report."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from heedful.cli.application import Device, app, console
from heedful.train.launched import is_first, num_here, num_processes
from heedful.train.processes import warm_up

if TYPE_CHECKING:
    from heedful.report import Experiment
    from heedful.train.recipe import Recipe
    from heedful.train.run import Run

DEFAULT_VARIANTS = ("none", "se", "se-ign3", "cbam", "cbam-ign1(0.5)")
Out = Annotated[Path | None, typer.Option(help="Folder for runs and report.", show_default="runs/...")]
Jobs = Annotated[
    int | None,
    typer.Option(help="Runs at a time, as processes, on the CPU or on one GPU.", show_default="CPU: cores, GPU: 1"),
]
Workers = Annotated[int, typer.Option(help="Processes that read image files; images of up to 64 pixels need none.")]
Evaluate = Annotated[
    list[str] | None,
    typer.Option(help="What to measure of finished runs: robustness, segmentation=horses/, ...; repeatable."),
]


@app.command()
def compare(
    variants: Annotated[
        list[str] | None,
        typer.Argument(help="What to put in: none se 'cbam-ign1(0.5)' se@icasc ...; the first is the reference."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, svhn, a folder of class folders, an .npz; clips, boxes.")
    ] = "digits",
    model: Annotated[
        str, typer.Option(help="A cifar_* network or any name of timm's; hcn+inertial, ...")
    ] = "cifar_resnet8",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    evaluate: Evaluate = None,
    out: Out = None,
    task: Annotated[
        Literal["classification", "clips", "detection"], typer.Option(help="What the data are labelled with.")
    ] = "classification",
    batch_size: Annotated[int, typer.Option(help="Images or clips a step.")] = 128,
    optimizer: Annotated[Literal["sgd", "adam"], typer.Option(help="Which.")] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="At the start.")] = 0.1,
    warmup: Annotated[int, typer.Option(help="Steps in which the rate grows to its start.")] = 0,
    weight_decay: Annotated[float, typer.Option(help="On kernels; the authors of [L] use 5e-4 in their code.")] = 1e-4,
    decay_all: Annotated[bool, typer.Option("--decay-all", help="Weight decay on biases and norms too.")] = False,
    schedule: Annotated[
        Literal["steps", "step10", "multiplied", "cosine", "annealed"], typer.Option(help="Of the learning rate.")
    ] = "steps",
    milestones: Annotated[
        str | None, typer.Option(help="Of step10 and multiplied: epochs, by commas, such as 81,122.")
    ] = None,
    factors: Annotated[
        str | None, typer.Option(help="Of multiplied: of the rate at the milestones, by commas, or one for all.")
    ] = None,
    attention_weight: Annotated[float, typer.Option(help="Of @icasc: of its losses.")] = 1.0,
    start_epoch: Annotated[int, typer.Option(help="Of @icasc: epochs before its losses count.")] = 0,
    ramp: Annotated[int, typer.Option(help="Of @icasc: epochs in which its losses grow to their weight.")] = 0,
    first_order: Annotated[bool, typer.Option("--first-order", help="Of @icasc: no second derivatives.")] = False,
    inner: Annotated[str | None, typer.Option(help="Of @icasc: its inner layer.", show_default="by network")] = None,
    last: Annotated[str | None, typer.Option(help="Of @icasc: its last layer.", show_default="by network")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="flip, shift, shift-zero, crop, by commas, or none; of clips window, turn, flip; of detection flip.",
            show_default="by data",
        ),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.", show_default="by data and model")] = None,
    limit: Annotated[
        float | None, typer.Option(help="Use at most so many images outside the test split (or that part of them).")
    ] = None,
    ten_crops: Annotated[bool, typer.Option("--ten-crops", help="Test on ten crops of each image.")] = False,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from weights of ImageNet; of clips with video, of Kinetics-400.")
    ] = False,
    precision: Annotated[Literal["32", "bf16", "16"], typer.Option(help="Of the arithmetic.")] = "32",
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    skip_bad_images: Annotated[bool, typer.Option("--skip-bad-images", help="Leave unreadable images out.")] = False,
    jobs: Jobs = None,
    device: Device = "auto",
    workers: Workers = 2,
) -> None:
    """Train every variant on the same seeds, and say honestly whether the attention helped."""
    if jobs != 1:
        warm_up()
    with console.status("setting up"):
        from heedful.train.recipe import compare_recipe

    settings: dict[str, Any] = {
        "task": task, "data": data, "model": model, "epochs": epochs, "batch_size": batch_size,
        "optimizer": optimizer, "learning_rate": learning_rate, "warmup": warmup,
        "weight_decay": weight_decay, "schedule": schedule, "image_size": image_size, "limit": _portion(limit),
        "pretrained": pretrained, "precision": precision, "compile": compile, "skip_bad_images": skip_bad_images,
        "augment": None if augment is None else tuple(name for name in augment.split(",") if name != "none"),
        "milestones": tuple(milestones.split(",")) if milestones else (), "attention_weight": attention_weight,
        "factors": tuple(factors.split(",")) if factors else (), "decay_all": decay_all,
        "start_epoch": start_epoch, "ramp": ramp, "first_order": first_order, "inner": inner, "last": last,
        "test_crops": 10 if ten_crops else 1,
    }  # fmt: skip
    recipe = compare_recipe(variants or DEFAULT_VARIANTS, settings, num_seeds=seeds, first_seed=first_seed)
    folder = out or Path("runs") / Path(data).stem
    _carry_out(recipe, folder, evaluate=evaluate, jobs=jobs, device=device, workers=workers)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped name such as laakom2021/table1.")],
    only: Annotated[list[str] | None, typer.Option(help="Rows to run now, by name or part of it; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.", show_default="the recipe's")] = None,
    scale: Annotated[float, typer.Option(help="Shrink epochs and images to this part; labelled as scaled.")] = 1.0,
    data: Annotated[list[str] | None, typer.Option(help="Data from elsewhere: cifar100=my.npz; repeatable.")] = None,
    evaluate: Evaluate = None,
    out: Out = None,
    jobs: Jobs = None,
    device: Device = "auto",
    workers: Workers = 2,
) -> None:
    """Run a recipe: a table of a paper, or an experiment of your own."""
    if jobs != 1:
        warm_up()
    with console.status("setting up"):
        from heedful.train import recipe as recipes
        from heedful.train.run import runs_of

    whole = recipes.read(recipe)
    whole = whole if seeds is None else recipes.with_seeds(whole, seeds)
    whole = whole if scale == 1 else recipes.scaled(whole, scale)
    whole = recipes.with_data(whole, data or ())
    chosen = recipes.only(whole, only) if only else whole
    folder = out or Path("runs") / Path(recipe).with_suffix("")
    _carry_out(whole, folder, only=runs_of(chosen), evaluate=evaluate, jobs=jobs, device=device, workers=workers)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="An experiment's folder (--out).")]) -> None:
    """Make page and tables again from the results alone."""
    from heedful.report import write

    _show(write(folder))


def _carry_out(
    recipe: "Recipe",
    out: Path,
    *,
    only: "Sequence[Run] | None" = None,
    evaluate: list[str] | None,
    jobs: int | None,
    device: str,
    workers: int,
) -> None:
    with console.status("setting up"):
        from heedful.experiment import IncompleteError, carry_out
        from heedful.progress import shown
        from heedful.train.queue import default_jobs
        from heedful.train.run import Machine, is_done, runs_of

    recipe = dataclasses.replace(recipe, command=shlex.join([*_launcher(), *sys.argv[1:]]))
    runs = runs_of(recipe) if only is None else only
    pending = [run for run in runs if not is_done(run, out)]
    if len(pending) < len(runs):
        console.print(f"{len(runs) - len(pending)} of {len(runs)} runs in {out} are done already", highlight=False)
    machine = Machine(device=device, num_workers=workers)
    jobs = default_jobs(device) if jobs is None else jobs
    try:
        with shown(pending, console) as progress:
            experiment = carry_out(
                recipe,
                out,
                only=runs,
                jobs=jobs,
                machine=machine,
                report=progress,
                evaluate=evaluate or (),
                tell=lambda text: console.print(text, highlight=False, markup=False),
            )
    except IncompleteError as error:
        if error.experiment is not None:
            _show(error.experiment)
        raise
    except KeyboardInterrupt:
        console.print("stopped: the same command goes on from the last finished epochs", highlight=False)
        raise typer.Exit(130) from None
    if is_first():
        _show(experiment)


def _launcher() -> list[str]:
    if num_processes() == 1:
        return ["heedful"]
    return ["torchrun", f"--nnodes={num_processes() // num_here()}", f"--nproc-per-node={num_here()}", "-m", "heedful"]


def _show(experiment: "Experiment") -> None:
    from heedful.report.formats import as_rich
    from heedful.report.sentences import notes, sentence
    from heedful.report.tables import compare

    for group in experiment.groups:
        comparisons = compare(group)
        # A narrow terminal wraps the lines, which loses nothing; rich would leave columns out.
        Console(width=max(console.width, 100)).print(as_rich(comparisons, group.title))
        lines = [sentence(comparison, comparisons[0]) for comparison in comparisons[1:]]
        for line in [*lines, *notes(group, comparisons)]:
            console.print(f"- {line}", highlight=False, markup=False, soft_wrap=not console.is_terminal)
    console.print(f"page: {experiment.folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)


def _portion(limit: float | None) -> float | int | None:
    return int(limit) if limit is not None and limit > 1 and limit.is_integer() else limit
