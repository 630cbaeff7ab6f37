"""The command line: each command parses and calls one function; what is heavy is imported inside the commands."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from heedful.errors import InputError
from heedful.train.processes import warm_up

if TYPE_CHECKING:
    from heedful.report import Experiment
    from heedful.train.recipe import Recipe
    from heedful.train.run import Run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Attention for convolutional networks: put it in, see what it ignores, learn whether it helped.",
)
console = Console()

DEFAULT_VARIANTS = ("none", "se", "se-ign3", "cbam", "cbam-ign1(0.5)")
Out = Annotated[Path | None, typer.Option(help="Folder for runs and report.", show_default="runs/...")]
Jobs = Annotated[
    int | None,
    typer.Option(help="Runs at a time, as processes, on the CPU or on one GPU.", show_default="CPU: cores, GPU: 1"),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
Workers = Annotated[int, typer.Option(help="Processes that read image files; images of up to 64 pixels need none.")]


@app.command()
def compare(
    variants: Annotated[
        list[str] | None,
        typer.Argument(help="What to put in: none se 'cbam-ign1(0.5)' se@icasc ...; the first is the reference."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, a folder of class folders, or an .npz.")
    ] = "digits",
    model: Annotated[str, typer.Option(help="A cifar_* network or any name of timm's.")] = "cifar_resnet8",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    out: Out = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Of SGD, at the start.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="On kernels; the authors of [L] use 5e-4 in their code.")] = 1e-4,
    schedule: Annotated[
        Literal["steps", "step10", "cosine", "annealed"], typer.Option(help="Of the learning rate.")
    ] = "steps",
    milestones: Annotated[str | None, typer.Option(help="Of step10: epochs, by commas, such as 81,122.")] = None,
    attention_weight: Annotated[float, typer.Option(help="Of @icasc: of its losses.")] = 1.0,
    start_epoch: Annotated[int, typer.Option(help="Of @icasc: epochs before its losses count.")] = 0,
    ramp: Annotated[int, typer.Option(help="Of @icasc: epochs in which its losses grow to their weight.")] = 0,
    first_order: Annotated[bool, typer.Option("--first-order", help="Of @icasc: no second derivatives.")] = False,
    inner: Annotated[str | None, typer.Option(help="Of @icasc: its inner layer.", show_default="by network")] = None,
    last: Annotated[str | None, typer.Option(help="Of @icasc: its last layer.", show_default="by network")] = None,
    augment: Annotated[
        str | None, typer.Option(help="flip, shift, shift-zero, crop, by commas, or none.", show_default="by data")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.", show_default="by data and model")] = None,
    limit: Annotated[
        float | None, typer.Option(help="Use at most so many images outside the test split (or that part of them).")
    ] = None,
    ten_crops: Annotated[bool, typer.Option("--ten-crops", help="Test on ten crops of each image.")] = False,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from timm's ImageNet weights.")] = False,
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
        "data": data, "model": model, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "schedule": schedule, "image_size": image_size, "limit": _portion(limit),
        "pretrained": pretrained, "precision": precision, "compile": compile, "skip_bad_images": skip_bad_images,
        "augment": None if augment is None else tuple(name for name in augment.split(",") if name != "none"),
        "milestones": tuple(milestones.split(",")) if milestones else (), "attention_weight": attention_weight,
        "start_epoch": start_epoch, "ramp": ramp, "first_order": first_order, "inner": inner, "last": last,
        "test_crops": 10 if ten_crops else 1,
    }  # fmt: skip
    recipe = compare_recipe(variants or DEFAULT_VARIANTS, settings, num_seeds=seeds, first_seed=first_seed)
    folder = out or Path("runs") / Path(data).stem
    _carry_out(recipe, folder, jobs=jobs, device=device, workers=workers)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped name such as laakom2021/table1.")],
    only: Annotated[list[str] | None, typer.Option(help="Rows to run now, by name or part of it; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.", show_default="the recipe's")] = None,
    scale: Annotated[float, typer.Option(help="Shrink epochs and images to this part; labelled as scaled.")] = 1.0,
    data: Annotated[list[str] | None, typer.Option(help="Data from elsewhere: cifar100=my.npz; repeatable.")] = None,
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
    _carry_out(whole, folder, only=runs_of(chosen), jobs=jobs, device=device, workers=workers)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="An experiment's folder (--out).")]) -> None:
    """Make page and tables again from the results alone."""
    from heedful.report import write

    _show(write(folder))


@app.command("list")
def list_names(
    kind: Annotated[Literal["models", "layers", "variants", "recipes"], typer.Argument(help="What to list.")],
) -> None:
    """List the names of models, layers with their sources, variants or recipes."""
    if kind == "recipes":
        from heedful.train.recipe import shipped

        names = list(shipped())
    elif kind == "models":
        import timm

        from heedful.models import MODELS

        names = [*MODELS, *timm.list_models()]
    else:
        from heedful.gates import attend, ign1, ign2, ign3
        from heedful.layers import SOURCES
        from heedful.variant import Part, Variant

        gates = (attend, ign1(1), ign1(0.5), ign2, ign3)
        names = ["none", *(str(Variant((Part(layer, gate),))) for layer in SOURCES for gate in gates)]
        if kind == "layers":
            names = [f"{name:<13} {source}" for name, source in SOURCES.items()]
    for name in names:
        print(name)


@app.command()
def cost(
    model: Annotated[str, typer.Argument(help="A cifar_* network or any name of timm's.")],
    variants: Annotated[list[str], typer.Argument(help="What to put in; the first is the reference, or none.")],
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.", show_default="by model")] = None,
    batch_size: Annotated[int, typer.Option(help="Images for memory and time.")] = 8,
    num_classes: Annotated[int, typer.Option(help="Outputs of the network.")] = 1000,
    repetitions: Annotated[int, typer.Option(help="Timed passes; a ratio is their median.")] = 5,
    no_time: Annotated[bool, typer.Option("--no-time", help="Measure no times.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")] = False,
    device: Device = "auto",
) -> None:
    """Show what attention costs: parameters, operations, memory for training, and time beside the plain network."""
    with console.status("setting up"):
        from heedful.evaluate.cost import as_rich, chosen_device, costs_of_variants

    where = chosen_device(device)
    with console.status("measuring"):
        costs = costs_of_variants(
            model,
            variants,
            image_size=image_size,
            batch_size=batch_size,
            num_classes=num_classes,
            device=where,
            repetitions=0 if no_time else repetitions,
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in costs], indent=1))
    else:
        Console(width=max(console.width, 100)).print(as_rich(costs, f"{model}, batch of {batch_size}, {where}"))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run's folder, one of save_pretrained, or a network's id on the Hub.")],
    format: Annotated[Literal["onnx", "torch"], typer.Option(help="onnx, or torch: an exported program.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="model.onnx or .pt2 in the folder")] = None,
) -> None:
    """Write a trained network as one file for other programs, and check the file against the network."""
    with console.status("setting up"):
        from heedful.export import SUFFIXES
        from heedful.export import export as write
        from heedful.models.saved import load

    path = out or (Path(run) if Path(run).is_dir() else Path()) / f"model{SUFFIXES[format]}"
    with console.status("exporting"):
        difference = write(load(run), path, format=format)
    console.print(f"{path}: within {difference:.1e} of the network", highlight=False, markup=False, soft_wrap=True)


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.", show_default=False)],
    model: Annotated[str, typer.Option(help="A run's folder, one of save_pretrained, or a name of timm's.")],
    layers: Annotated[
        str | None, typer.Option(help="Names of modules, by commas.", show_default="the last of 4 x 4 places")
    ] = None,
    method: Annotated[str, typer.Option(help="Of the maps: grad-cam, channel, layer-cam, ...")] = "grad-cam",
    classes: Annotated[str, typer.Option(help="top5, or names or numbers of classes by commas.")] = "top5",
    smooth: Annotated[str, typer.Option(help="Average over copies: none, flip or noise.")] = "none",
    pretrained: Annotated[bool, typer.Option(help="Take timm's weights for a name of timm's.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for pictures and page.")] = Path("explained"),
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 16,
    device: Device = "auto",
) -> None:
    """Draw what a network heeds in images: maps of their highest classes, and a page of all of them."""
    from rich.progress import Progress

    with Progress(console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("setting up", total=None)
        from heedful.explain import explain as draw

        outcome = draw(
            images, model, out=out, layers=None if layers is None else layers.split(","), method=method,
            classes=classes, smooth=smooth, pretrained=pretrained, batch_size=batch_size, device=device,
            report=lambda done, total: bars.update(task, description="images", completed=done, total=total),
        )  # fmt: skip
    for failure in outcome.failures:
        console.print(f"{failure.name} cannot be read: {failure.reason}", markup=False, highlight=False, soft_wrap=True)
    for text in outcome.warnings:
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: {out / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if outcome.failures else 0)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, such as runs/digits/runs/none/seed-0.")],
    on: Annotated[
        Literal["classification", "maps"], typer.Option(help="Error and loss, or what its class maps are worth.")
    ] = "classification",
    data: Annotated[
        str | None,
        typer.Option(help="A folder (images/ with boxes.csv or masks/), .npz or name.", show_default="test images"),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Of the maps.", show_default="last of 4 x 4 places")] = None,
    method: Annotated[str, typer.Option(help="Of the maps: grad-cam, channel, layer-cam, ...")] = "grad-cam",
    limit: Annotated[int | None, typer.Option(help="Use at most so many images, evenly spaced.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="One file for all runs.", show_default="maps.json in each run's folder")
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure trained runs again: on other images, or what their maps are worth, beside a map that knows nothing."""
    with console.status("setting up"):
        from heedful.evaluate.cost import chosen_device
        from heedful.evaluate.runs import evaluate_runs, write
        from heedful.evaluate.tables import as_rich, notes

    where = chosen_device(device)
    with console.status("evaluating") as status:
        found = evaluate_runs(
            runs,
            on=on,
            source=data,
            layer=layer,
            method=method,
            limit=limit,
            device=where,
            report=lambda run: status.update(f"evaluating {run.name}"),
        )
    paths = write(found, on, out)
    for table in as_rich(found, on):
        Console(width=max(console.width, 100)).print(table)
    for line in [*notes(found), f"written: {', '.join(map(str, paths))}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the line.")
    ] = False,
) -> None:
    """Stand for options of every command; `main` reads them."""


def _carry_out(
    recipe: "Recipe", out: Path, *, only: "Sequence[Run] | None" = None, jobs: int | None, device: str, workers: int
) -> None:
    with console.status("setting up"):
        from heedful.experiment import carry_out
        from heedful.progress import shown
        from heedful.train.queue import default_jobs
        from heedful.train.run import Machine, is_done, runs_of

    recipe = dataclasses.replace(recipe, command=shlex.join(["heedful", *sys.argv[1:]]))
    runs = runs_of(recipe) if only is None else only
    pending = [run for run in runs if not is_done(run, out)]
    if len(pending) < len(runs):
        console.print(f"{len(runs) - len(pending)} of {len(runs)} runs in {out} are done already", highlight=False)
    machine = Machine(device=device, num_workers=workers)
    jobs = default_jobs(device) if jobs is None else jobs
    try:
        with shown(pending, console) as progress:
            experiment = carry_out(recipe, out, only=pending, jobs=jobs, machine=machine, report=progress)
    except KeyboardInterrupt:
        console.print("stopped: the same command goes on from the last finished epochs", highlight=False)
        raise typer.Exit(130) from None
    _show(experiment)


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


def main() -> None:
    """Run the command line; a user's error is one message and exit code 2, without a traceback unless --debug."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (InputError, OSError) as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
