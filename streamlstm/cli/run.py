"""`streamlstm run`."""

from typing import Annotated

import typer

from streamlstm.cli.options import ConfigPath, Settings, overrides
from streamlstm.cli.terminal import output
from streamlstm.config import to_yaml
from streamlstm.service.opening import resolve
from streamlstm.service.running import dry_run as run_dry
from streamlstm.service.running import run_daemon
from streamlstm.service.supervisor import end_with_parent, run_workers


def run(
    config: ConfigPath = None,
    settings: Settings = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Processes that share the partitions.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Connect, restore and score one block; send and commit nothing.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration in force, secrets hidden, and leave.")
    ] = False,
    worker: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Score the records of Kafka topics until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    chosen = overrides(settings)
    if print_config:
        print(to_yaml(resolve(config, None, chosen)[0], secrets=False), end="")
        return 0
    if dry_run:
        for name, value in run_dry(config, chosen):
            output.print(f"{name}: {value}", markup=False, soft_wrap=True)
        return 0
    if workers > 1:
        return run_workers(config, settings or [], workers)
    if worker is not None:
        end_with_parent()
    return run_daemon(config, chosen, worker=worker)
