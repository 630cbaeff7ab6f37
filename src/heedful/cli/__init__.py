"""The command line: each command parses and calls one function; what is heavy is imported inside the commands."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from heedful.cli import experiments, networks, seeing
from heedful.cli.application import app
from heedful.errors import InputError

__all__ = ["app", "experiments", "main", "networks", "seeing"]


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the line.")
    ] = False,
) -> None:
    """Stand for options of every command; `main` reads them."""


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
