"""Commands about what trained networks see: explain, evaluate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from heedful.cli.application import Device, app, console
from heedful.errors import InputError


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
    query: Annotated[
        Path | None, typer.Option(help="An image that drives the masks of the others, in networks such as pay2-dp.")
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="Of a detector: the least that is drawn.", show_default="0.5")
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Take timm's weights for a name of timm's.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for pictures and page.")] = Path("explained"),
    batch_size: Annotated[int, typer.Option(help="Images at a time; a detector sees each alone.")] = 16,
    device: Device = "auto",
) -> None:
    """Draw what a network heeds in images, maps of its highest classes, or what a detector finds; a page of all."""
    from rich.progress import Progress

    with Progress(console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("setting up", total=None)
        from heedful import files
        from heedful.explain import explain as draw
        from heedful.explain.detections import explain_detections, is_detector
        from heedful.explain.query import driven

        def report(done: int, total: int) -> None:
            bars.update(task, description="images", completed=done, total=total)

        picture = None
        if is_detector(model):
            given = {"--layers": layers, "--method": method != "grad-cam", "--classes": classes != "top5",
                     "--smooth": smooth != "none", "--query": query, "--batch-size": batch_size != 16}  # fmt: skip
            _refuse(given, "finds objects")
            outcome = explain_detections(
                images, model, out=out, score=0.5 if score is None else score, device=device, report=report
            )
        else:
            _refuse({"--score": score is not None}, "classifies images")
            if query is not None:
                picture = driven(images, model, query, pretrained=pretrained, device=device)
            outcome = draw(
                images, model, out=out, layers=None if layers is None else layers.split(","), method=method,
                classes=classes, smooth=smooth, pretrained=pretrained, batch_size=batch_size, device=device,
                report=report,
            )  # fmt: skip
    if query is not None and picture is not None:
        files.write(out / f"query+{query.stem}.png", picture)  # no picture of an image has a + in its name
        console.print(f"query: {out / f'query+{query.stem}.png'}", highlight=False, markup=False, soft_wrap=True)
    for failure in outcome.failures:
        console.print(f"{failure.name} cannot be read: {failure.reason}", markup=False, highlight=False, soft_wrap=True)
    for text in outcome.warnings:
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: {out / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if outcome.failures else 0)


def _refuse(given: Mapping[str, object], does: str) -> None:
    """Raise an InputError if an option is given that has no meaning for a network that does this."""
    for option, is_given in given.items():
        if is_given:
            raise InputError(f"this network {does}, which has no use for {option}: leave it out")


Protocol = Literal["classification", "detection", "maps", "localization", "robustness", "transfer", "segmentation"]


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, such as runs/digits/runs/none/seed-0.")],
    on: Annotated[Protocol, typer.Option(help="What to measure: see docs/evaluations.md.")] = "classification",
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder (images/ with boxes.csv or masks/, COCO, VOC), .npz or name.", show_default="test images"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many images, evenly spaced.")] = None,
    layer: Annotated[str | None, typer.Option(help="Of the class maps.", show_default="last of 4 x 4 places")] = None,
    method: Annotated[str, typer.Option(help="Of the class maps: grad-cam, channel, layer-cam, ...")] = "grad-cam",
    epsilons: Annotated[
        str, typer.Option(help="Of robustness: sizes of attacks, ascending.")
    ] = "0,1/255,2/255,4/255,8/255,16/255",
    steps: Annotated[int, typer.Option(help="Of robustness: of PGD.")] = 20,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Of robustness: measure noise, blur, JPEG and contrast too.")
    ] = False,
    fuse: Annotated[str, typer.Option(help="Of segmentation: product or mean of the levels, or a level.")] = "product",
    train_per_class: Annotated[
        int | None, typer.Option(help="Of transfer: images a class to learn from.", show_default="by data")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Of transfer: draws of these images.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="One file for all runs.", show_default="a file in each run's folder")
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure trained runs again: on other images, under attack, or what their maps and features are worth."""
    with console.status("setting up"):
        from heedful.evaluate.cost import chosen_device
        from heedful.evaluate.epsilons import parse_epsilons
        from heedful.evaluate.evaluations import evaluate_runs, is_evaluated, write
        from heedful.evaluate.found import Found
        from heedful.evaluate.protocols import Asked, check
        from heedful.evaluate.runs import read_run
        from heedful.evaluate.tables import as_rich, notes

    asked = Asked(
        source=data, limit=limit, layer=layer, method=method, epsilons=parse_epsilons(epsilons), steps=steps,
        corruptions=corruptions, fuse=fuse, train_per_class=train_per_class, num_seeds=seeds,
    )  # fmt: skip
    check(on, asked)
    where = chosen_device(device)
    paths: list[Path] = []
    if out is None:
        for folder in runs:
            is_evaluated(read_run(folder), on, asked)  # so that what cannot be written is not measured

    def keep(folder: str, found: Found) -> None:
        """Write what was found of a run at once, so that it stays if a later run fails."""
        if out is None:
            paths.extend(write({folder: found}, on, asked))

    with console.status("evaluating") as status:
        everything = evaluate_runs(
            runs,
            on=on,
            asked=asked,
            device=where,
            report=lambda run: status.update(f"evaluating {run.name}"),
            done=keep,
        )
    if out is not None:
        paths = write(everything, on, asked, out)
    for table in as_rich(everything, on):
        Console(width=max(console.width, 100)).print(table)
    for line in [*notes(everything), f"written: {', '.join(map(str, paths))}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
