"""A model as ONNX: the whole prediction of all three heads, from regressors and inputs that the caller keeps."""

from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.errors import OutputError
from streamlstm.interop.foreign import refuse, swapped, wanted
from streamlstm.interop.onnx_reading import ORDER, PEEPHOLES
from streamlstm.model.network import Model

_OPSET = 17
_NODES = {
    "lstm": "LSTM", "peephole_lstm": "LSTM", "gru": "GRU", "gru_before": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN",
}  # fmt: skip


def write(model: Model, path: str) -> None:
    """Writes `model` to a `.onnx` file; raises OutputError where it cannot.

    Inputs float32, in standard deviations: `x` (steps, streams, I), what the LSTM reads (the record before, within +-clip),
    `raw` and `clipped` (steps, streams, P), the regressors of the skips, and for each layer n `h_n` and, of an LSTM, `c_n`
    (1, streams, H). Outputs: `prediction` (steps, streams, 3 D), head by head, and `h_n_out`, `c_n_out`.
    """
    onnx = wanted("onnx", path)
    if model.network.cell.layer_norm:
        refuse(path, "layer normalisation inside the cell, which no node of ONNX has,", "a model without it")
    helper, kind = onnx.helper, _NODES[model.network.cell.name]
    network, H = model.network, model.network.hidden_size
    wide, (heads, D, P) = network.layers[0].W_ih.shape[1], network.skip.shape
    arrays: dict[str, Any] = {"axis": np.array([1], np.int64)}
    nodes, read = [], "x"
    states: list[str] = []
    for n, layer in enumerate(network.layers):
        tensors = network.cell.tensors(layer)
        order = _inverse(ORDER[kind])
        arrays[f"W_{n}"] = swapped(tensors["weight_ih"], order)[None]
        arrays[f"R_{n}"] = swapped(tensors["weight_hh"], order)[None]
        arrays[f"B_{n}"] = np.concatenate([swapped(tensors[f"bias_{of}"], order) for of in ("ih", "hh")])[None]
        kept = [f"h_{n}", f"c_{n}"] if kind == "LSTM" else [f"h_{n}"]
        given = [read, f"W_{n}", f"R_{n}", f"B_{n}", "", *kept]
        if "weight_ch" in tensors:
            arrays[f"P_{n}"] = swapped(tensors["weight_ch"], _inverse(PEEPHOLES))[None]
            given.append(f"P_{n}")
        options: dict[str, Any] = {"linear_before_reset": 1} if network.cell.name == "gru" else {}
        if kind == "RNN":
            options["activations"] = ["Relu" if network.cell.name == "rnn_relu" else "Tanh"]
        nodes.append(
            helper.make_node(kind, given, [f"y_{n}", *(f"{name}_out" for name in kept)], hidden_size=H, **options)
        )
        nodes.append(helper.make_node("Squeeze", [f"y_{n}", "axis"], [f"out_{n}"]))
        states += kept
        read = f"out_{n}"
    arrays |= {"readout": network.readout.T, "readout_bias": network.readout_bias}
    nodes += [helper.make_node("MatMul", [read, "readout"], ["recurrent"]),
              helper.make_node("Add", ["recurrent", "readout_bias"], ["of_h"])]  # fmt: skip
    for head, regressors in enumerate(("raw", "clipped", "raw")):
        arrays[f"skip_{head}"] = network.skip[head].T
        nodes.append(helper.make_node("MatMul", [regressors, f"skip_{head}"], [f"linear_{head}"]))
    nodes += [helper.make_node("Concat", [f"linear_{head}" for head in range(heads)], ["linear"], axis=-1),
              helper.make_node("Add", ["of_h", "linear"], ["prediction"])]  # fmt: skip

    def shown(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "streamlstm",
        [shown(name, ["steps", "streams", size]) for name, size in (("x", wide), ("raw", P), ("clipped", P))]
        + [shown(name, [1, "streams", H]) for name in states],
        [shown("prediction", ["steps", "streams", heads * D])]
        + [shown(f"{name}_out", [1, "streams", H]) for name in states],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="streamlstm")
    made.ir_version = 8  # of that opset; newer ones are unknown to runtimes of last year
    helper.set_model_props(made, {"hash": model.hash, "features": ",".join(model.features)})
    onnx.checker.check_model(made)
    try:
        Path(path).write_bytes(made.SerializeToString())
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror}") from error


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(n) for n in range(len(order)))
