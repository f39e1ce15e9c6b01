"""The command line: commands are gathered here, errors become one readable line and an exit status."""

import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer

from streamlstm.cli import config, model, state
from streamlstm.cli.broker import broker
from streamlstm.cli.compare import compare
from streamlstm.cli.demo import demo
from streamlstm.cli.evaluate import evaluate
from streamlstm.cli.fit import fit
from streamlstm.cli.forecast import forecast
from streamlstm.cli.interrupts import Interrupts
from streamlstm.cli.replay import replay
from streamlstm.cli.run import run as run_command
from streamlstm.cli.terminal import console
from streamlstm.cli.warm_up import warm_up
from streamlstm.errors import StreamlstmError
from streamlstm.version import VERSION

app = typer.Typer(
    name="streamlstm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Streaming anomaly detection for sensors.",
)
for command in (demo, fit, replay, forecast, evaluate, compare, warm_up, broker):
    app.command()(command)
app.command("run")(run_command)
app.add_typer(config.app, name="config")
app.add_typer(model.app, name="model")
app.add_typer(state.app, name="state")


def _version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Streaming anomaly detection for sensors."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: 0, 2 for usage and configuration, 130 on Ctrl-C, 143 on SIGTERM, 1 for any other error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """The exit status of a command."""
    debug = "--debug" in arguments
    with Interrupts() as interrupts:
        try:
            status = app([a for a in arguments if a != "--debug"], standalone_mode=False)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            if interrupts.status is None:
                return _failed(error, debug)
        if interrupts.status is not None:  # Typer may have made a status of it, another one for each of its versions
            return _complain("interrupted; what was written until now is whole", interrupts.status, False)
    return status if isinstance(status, int) else 0


_USAGE: Any = typer.BadParameter.__mro__[1]  # UsageError, which typer does not name in public


def _failed(error: BaseException, debug: bool) -> int:
    """Says what happened and returns the exit status."""
    if isinstance(error, StreamlstmError):
        return _complain(str(error), error.exit_code, debug)
    if isinstance(error, _USAGE):
        what = error.format_message().rstrip(".")  # empty: the help was asked for by giving no command
        return _complain(f"{what}; see `streamlstm --help`", 2, debug) if what else 2
    if isinstance(error, BrokenPipeError):  # the reader of our standard output has left: `... | head`
        _forget_output()
        return 1
    if isinstance(error, OSError) and error.strerror:  # of standard output, where it names no file
        _forget_output()
        return _complain(f"{error.filename or 'standard output'}: {error.strerror}", 1, debug)
    return _complain(f"unexpected {type(error).__name__}: {error}; run again with --debug and report it", 1, debug)


def _forget_output() -> None:
    """Lets what standard output still holds go nowhere, since writing it at exit would only fail again."""
    with suppress(OSError, ValueError):  # not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    console.print(f"streamlstm: {text}", markup=False, soft_wrap=True)
    return status
