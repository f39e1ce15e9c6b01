"""`streamlstm model show | import | export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from streamlstm.cli.terminal import output
from streamlstm.errors import UsageError
from streamlstm.interop.exchange import FORMATS, import_model
from streamlstm.interop.onnx_writing import write
from streamlstm.kernels.cells import CELLS
from streamlstm.model.files import load_model, save_model
from streamlstm.model.network import Model

app = typer.Typer(no_args_is_help=True, help="Look into model files; bring weights in and out.")


@app.callback()
def group() -> None:
    """Look into model files; bring weights in and out."""


@app.command()
def show(
    path: Annotated[str, typer.Argument(metavar="M", help="A model file.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print what a model is, on what it was trained, and how that went."""
    model = load_model(path)
    H, L = model.network.hidden_size, len(model.network.layers)
    weights = (model.network.cell.name, "readout", "skip", "forecast")
    facts = {
        "hash": model.hash,
        "cell": model.network.cell.name,
        "layer_norm": model.network.cell.layer_norm,
        "hidden_size": H,
        "num_layers": L,
        "weights": f"per stream, {len(model.own)} networks beside that for other streams" if model.own else "shared",
        "parameters": sum(a.size for name, a in model.tensors().items() if name.startswith(weights)),
        "features": list(model.features),
        "exogenous": list(model.exogenous),
        "forecast": forecast_of(model),
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
            text = "".join(f"\n  {key}: {entry}" for key, entry in value.items() if key != "curve")
        output.print(f"{name}: {text}", markup=False, soft_wrap=True)


def forecast_of(model: Model) -> str:
    """What the model says of records to come, in words."""
    wanted = model.config.forecast
    what = f"quantiles {', '.join(map(str, wanted.quantiles))}" if wanted.loss == "pinball" else "mean and scale"
    return f"{what} of the next {wanted.horizons} records" if wanted.horizons else "none"


@app.command("import")
def import_weights(
    path: Annotated[str, typer.Argument(metavar="FILE", help=f"Weights of another framework: {', '.join(FORMATS)}.")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="OUT.safetensors", help="Where the model goes.")],
    features: Annotated[str, typer.Option(metavar="A,B,..", help="The columns it predicts, in its own order.")],
    exogenous: Annotated[
        str, typer.Option(metavar="C,D,..", help="Columns that it reads behind them and does not predict.")
    ] = "",
    cell: Annotated[
        str | None, typer.Option(metavar="rnn_relu", help="Of a plain RNN whose file does not tell its activation.")
    ] = None,
) -> None:
    """Make a model of a forecaster of PyTorch, Keras 3 or ONNX: recurrent layers and one dense readout.

    At each record it must have learned to predict the features from those of the record before and the exogenous columns
    of this one, all in standard deviations from the mean.
    """
    if cell is not None and cell not in CELLS:
        raise UsageError(f"--cell {cell}: unknown; one of {', '.join(CELLS)}")
    made = import_model(path, _names(features), _names(exogenous), cell)
    save_model(made, model)
    network = made.network
    output.print(
        f"{model}: {network.cell.name}, {len(network.layers)} x {network.hidden_size} units; "
        f"predicts {', '.join(made.features)}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


@app.command("export")
def export_weights(
    path: Annotated[str, typer.Argument(metavar="M", help="A model file.")],
    out: Annotated[str, typer.Argument(metavar="OUT.onnx", help="Where the ONNX file goes.")],
) -> None:
    """Write a model as ONNX: inputs and states in, the predictions of all heads out."""
    if Path(out).suffix != ".onnx":
        raise UsageError(f"{out}: models are exported as ONNX; give a name that ends in .onnx")
    write(load_model(path), out)
    output.print(f"{out}: written", markup=False, soft_wrap=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
