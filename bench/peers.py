"""The peers: ONNX Runtime's LSTM node on one thread, called as its users call it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.problem import Float32, Problem

_OUTPUTS = ["Y_h", "Y_c"]


class OnnxLstm:
    """A session with one LSTM node; h and c go in and come out, as a stream's state must."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.session = _session(_model(problem))

    def step(self, x: Float32, h: Float32, c: Float32) -> tuple[Float32, Float32]:
        """h and c (B, H) after x (B, I)."""
        h, c = self.session.run(_OUTPUTS, {"X": x[None], "h": h[None], "c": c[None]})
        return h[0], c[0]

    def call(self) -> Callable[[], Any]:
        """`session.run` on inputs that are there already; it makes its outputs anew."""
        p = self.problem
        return partial(self.session.run, _OUTPUTS, {"X": p.x[None], "h": p.h[None], "c": p.c[None]})

    def bound_call(self) -> Callable[[], Any]:
        """`run_with_iobinding`: inputs and outputs lie in arrays named beforehand, the least that its API allows."""
        binding = self.session.io_binding()
        p = self.problem
        for name, array in (("X", p.x), ("h", p.h), ("c", p.c)):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array[None].copy()))
        for name in _OUTPUTS:
            empty = np.empty_like(p.h)[None]
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(empty))
        return partial(self.session.run_with_iobinding, binding)


def sequence(problem: Problem, x: Float32) -> Callable[[], Float32]:
    """The only stream of the problem through x (T, I) in one `session.run`; h after each step (T, H)."""
    session = _session(_model(problem, steps=len(x)))
    given = {"X": x[:, None], "h": problem.h[None], "c": problem.c[None]}

    def call() -> Float32:
        out: Float32 = session.run(["Y"], given)[0][:, 0, 0]
        return out

    return call


def onnx_gates(rows: Float32) -> Float32:
    """Rows of the gates i, f, g, o in ONNX's order i, o, f, c (its c is our g)."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(problem: Problem, steps: int | None = None) -> bytes:
    """The node for one step, or with the output Y of each of `steps`."""
    B, I = problem.x.shape
    H = problem.h.shape[1]
    state = [1, B, H]
    weights = {
        "W": onnx_gates(problem.W_ih)[None],
        "R": onnx_gates(problem.W_hh)[None],
        "bias": np.concatenate([onnx_gates(problem.bias), np.zeros_like(problem.bias)])[None],
    }
    node = helper.make_node(
        "LSTM", ["X", "W", "R", "bias", "", "h", "c"], ["Y" if steps else "", *_OUTPUTS], hidden_size=H
    )
    inputs: dict[str, list[int]] = {"X": [steps or 1, B, I], "h": state, "c": state}
    outputs: dict[str, list[int]] = dict.fromkeys(_OUTPUTS, state) | ({"Y": [steps, 1, B, H]} if steps else {})
    graph = helper.make_graph(
        [node],
        "lstm_step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())
