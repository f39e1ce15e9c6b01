"""Weights of ONNX: `LSTM`, `GRU` or `RNN` nodes and one dense readout (`Gemm`, or `MatMul` and `Add`).

The gates of ONNX come as i, o, f, g and z, r, n; peepholes as i, o, f.
"""

from typing import Any

import numpy as np

from streamlstm.errors import ModelError
from streamlstm.interop.foreign import Forecaster, refuse, swapped, wanted

_RECURRENT = ("LSTM", "GRU", "RNN")
ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def read(path: str, cell: str | None = None) -> Forecaster:
    """The forecaster of a file; ModelError for options that we do not have. `cell` is told by the file."""
    onnx = wanted("onnx", path)
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # of protobuf, which has no base of its own that says so
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    known = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    nodes = [node for node in graph.node if node.op_type in _RECURRENT]
    kinds = {node.op_type for node in nodes}
    if len(kinds) != 1:
        raise ModelError(
            f"{path}: nodes of one kind of LSTM, GRU or RNN are wanted, found {', '.join(kinds) or 'none'}"
        )
    options = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in nodes]
    layers = tuple(_layer(path, node, more, known) for node, more in zip(nodes, options, strict=True))
    kind = nodes[0].op_type
    names = {
        "GRU": "gru" if options[0].get("linear_before_reset") else "gru_before",
        "LSTM": "peephole_lstm" if "weight_ch" in layers[0] else "lstm",
    }
    relu = [name.decode() for name in options[0].get("activations", [])] == ["Relu"]
    return Forecaster(names.get(kind, "rnn_relu" if relu else "rnn_tanh"), layers, *_readout(path, graph, known))


def _layer(path: str, node: Any, options: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    kind = node.op_type
    name = f"{kind} {node.name}".strip()
    if options.get("direction", b"forward") != b"forward":
        refuse(path, f"{name}: direction {options['direction'].decode()}", "forward")
    activations = [text.decode() for text in options.get("activations", [])] or _USUAL[kind]
    if activations != _USUAL[kind] and (kind, activations) != ("RNN", ["Relu"]):
        refuse(path, f"{name}: activations {', '.join(activations)}", ", ".join(_USUAL[kind]))
    for option, works in (("clip", "no clip"), ("input_forget", "input_forget 0")):
        if options.get(option):
            refuse(path, f"{name}: {option}", works)
    given = [*node.input, *[""] * 8]
    missing = [text for text in (*given[1:4], given[7]) if text and text not in known]
    if missing:
        raise ModelError(f"{path}: {name}: {', '.join(missing)} are computed; weights have to be stored in the file")
    if any(known[text].any() for text in given[5:7] if text in known):
        refuse(path, f"{name}: a state to start from", "one that starts from zero")
    W, R = known[given[1]][0], known[given[2]][0]
    rows, order = len(R), ORDER[kind]
    bias = known[given[3]][0] if given[3] else np.zeros(2 * rows, np.float32)
    layer = {
        "weight_ih": swapped(W, order),
        "weight_hh": swapped(R, order),
        "bias_ih": swapped(bias[:rows], order),
        "bias_hh": swapped(bias[rows:], order),
    }
    return layer | ({"weight_ch": swapped(known[given[7]][0], PEEPHOLES)} if given[7] else {})


def _readout(path: str, graph: Any, known: dict[str, Any]) -> tuple[Any, Any]:
    found = []
    for node in graph.node:
        weights = [known[name] for name in node.input if name in known and known[name].ndim == 2]
        if node.op_type == "Gemm" and weights:
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            readout = weights[0] if turned else weights[0].T
            bias = known.get(node.input[2]) if len(node.input) > 2 else None
            found.append((readout, np.zeros(len(readout)) if bias is None else bias))
        elif node.op_type == "MatMul" and weights and node.input[1] in known:
            bias = [
                known[name]
                for after in graph.node
                if after.op_type == "Add" and node.output[0] in after.input
                for name in after.input
                if name in known
            ]
            found.append((weights[0].T, bias[0] if bias else np.zeros(weights[0].shape[1])))
    if len(found) != 1:
        raise ModelError(
            f"{path}: one dense readout (Gemm, or MatMul with stored weights) is wanted, found {len(found)}"
        )
    return found[0]
