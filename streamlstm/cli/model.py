"""`streamlstm model show`."""

import json
from typing import Annotated

import typer

from streamlstm.cli.terminal import output
from streamlstm.model.files import load_model

app = typer.Typer(no_args_is_help=True, help="Look into model files.")


@app.callback()
def group() -> None:
    """Look into model files."""


@app.command()
def show(
    path: Annotated[str, typer.Argument(metavar="M", help="A model file.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print what a model is, on what it was trained, and how that went."""
    model = load_model(path)
    H, L = model.network.hidden_size, len(model.network.layers)
    facts = {
        "hash": model.hash,
        "cell": "lstm",
        "hidden_size": H,
        "num_layers": L,
        "parameters": sum(
            a.size for name, a in model.tensors().items() if name.startswith(("lstm", "readout", "skip"))
        ),
        "features": list(model.features),
        "exogenous": list(model.exogenous),
        "training": model.training,
        "config": model.config.model_dump(mode="json"),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if name == "config":
            continue
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        if isinstance(value, dict):
            text = "".join(f"\n  {key}: {entry}" for key, entry in value.items())
        output.print(f"{name}: {text}", markup=False, soft_wrap=True)
