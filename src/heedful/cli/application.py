"""What the commands share: the application that they join, the terminal, and where to compute."""

from typing import Annotated, Literal

import typer
from rich.console import Console

from heedful.train.launched import is_first

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Attention for convolutional networks: put it in, see what it ignores, learn whether it helped.",
)
console = Console(quiet=not is_first())

Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
