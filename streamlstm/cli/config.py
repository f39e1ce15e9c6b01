"""`streamlstm config show | check | schema`."""

import json
from typing import Annotated

import typer

from streamlstm.cli.options import Settings, overrides
from streamlstm.cli.terminal import output
from streamlstm.config import json_schema, load, to_yaml
from streamlstm.model.layout import make_layout

app = typer.Typer(no_args_is_help=True, help="Show, check and describe configurations.")
Source = Annotated[
    str | None, typer.Argument(metavar="[C]", help="A YAML file or a preset's name; none: the defaults.")
]


@app.command()
def show(source: Source = None, settings: Settings = None) -> None:
    """Print the whole configuration as YAML, defaults included."""
    print(to_yaml(load(source, overrides=overrides(settings))), end="")


@app.command()
def check(
    source: Source = None,
    settings: Settings = None,
    features: Annotated[int | None, typer.Option(min=1, help="Features, where the configuration names none.")] = None,
) -> None:
    """Check a configuration and say what a stream costs."""
    config = load(source, overrides=overrides(settings))
    names = config.input.features or features or 1
    known = len(config.input.exogenous)
    online = config.learning.mode == "online"
    size = make_layout(config, names, known, online=online).bytes_per_stream
    count = names if isinstance(names, int) else len(names)
    learning = "learning online" if online else "frozen weights"
    output.print(
        f"{source or 'defaults'}: valid. {count} feature{'s' * (count != 1)}, {known} exogenous, {learning}: "
        f"{size:,} bytes of state per stream, {size * 1e6 / 1e9:.2f} GB for a million",
        markup=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def schema() -> None:
    """Print the JSON schema of configurations."""
    print(json.dumps(json_schema(), indent=2))
