"""``trunkline``: the commands, and how their errors are told.

Exit codes: 0 done; 1 done, but the outcome is not the one that was asked for; 2 wrong usage or settings; 3 not
available now; 130 broken off with Ctrl-C.
"""

import os
import sys
from typing import Annotated

import typer

import trunkline
from trunkline.cli.call import call
from trunkline.cli.demo import demo
from trunkline.cli.devices import devices
from trunkline.cli.send import send
from trunkline.cli.serve import serve
from trunkline.cli.simulate import simulate
from trunkline.errors import TrunklineError, Unavailable

__all__ = ["app", "main"]

app = typer.Typer(
    name="trunkline",
    help="A switchboard for long-lived TCP connections.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (serve, devices, send, call, simulate, demo):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(trunkline.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """A switchboard for long-lived TCP connections."""


def main() -> None:
    """Runs the command line; an error is one line on standard error."""
    try:
        app()
    except TrunklineError as error:
        print(f"trunkline: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, Unavailable) else 2)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. What the interpreter still flushes must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
