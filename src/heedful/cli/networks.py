"""Commands about networks: list, cost, export."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from heedful.cli.application import Device, app, console


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
        from heedful.models.detection import DETECTORS
        from heedful.models.named_streams import STREAMS

        names = [*MODELS, *STREAMS, *DETECTORS, *timm.list_models()]
    else:
        from heedful.gates import attend, ign1, ign2, ign3
        from heedful.layers import SOURCES
        from heedful.layers.mmtm import MMTM
        from heedful.layers.pay_attention import COMPATIBILITIES, AttentivePooling, softmax
        from heedful.variant import FUSIONS, Fusion, Part, Pay

        gates = (attend, ign1(1), ign1(0.5), ign2, ign3)
        paying = [str(Pay(2, name, gate=gate)) for name in COMPATIBILITIES for gate in (softmax, *gates)]
        fusing = [name for name in FUSIONS if name != "mmtm"] + [str(Fusion("mmtm", gate)) for gate in gates]
        names = ["none", *(str(Part(layer, gate)) for layer in SOURCES for gate in gates), *paying, *fusing]
        if kind == "layers":
            others = [("pay", AttentivePooling.source), ("mmtm", MMTM.source)]
            names = [f"{name:<13} {source}" for name, source in [*SOURCES.items(), *others]]
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
