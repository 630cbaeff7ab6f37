"""Commands about what trained networks see: explain, evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from heedful.cli.application import Device, app, console


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
        from heedful.evaluate.maps import Numbers
        from heedful.evaluate.runs import evaluate_runs, write
        from heedful.evaluate.tables import as_rich, notes

    where = chosen_device(device)
    paths: list[Path] = []

    def keep(folder: str, numbers: Numbers) -> None:
        """Write a run's numbers at once, so that they stay if a later run fails."""
        if out is None:
            paths.extend(write({folder: numbers}, on))

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
            done=keep,
        )
    if out is not None:
        paths = write(found, on, out)
    for table in as_rich(found, on):
        Console(width=max(console.width, 100)).print(table)
    for line in [*notes(found), f"written: {', '.join(map(str, paths))}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
