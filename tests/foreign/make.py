"""Made the files of this folder once, with torch 2, keras 3 (on torch), onnx and onnxruntime: `python make.py`.

Each forecaster reads two values and a third, known one, and predicts the next two. `outputs.npz` holds what the
frameworks themselves predict along `inputs`, (200, 3).
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

STEPS, INPUTS, OUTPUTS, H = 200, 3, 2, 5
rng = np.random.default_rng(0)
x = np.clip(np.cumsum(rng.normal(size=(STEPS, INPUTS)), axis=0) / 4, -4, 4).astype(np.float32)
x[1, :2] = x[0, :2]  # a new stream reads its first record as the one before, too
outputs = {"inputs": x}


class Net(torch.nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.readout = recurrent, torch.nn.Linear(H, OUTPUTS)

    def forward(self, x):
        return self.readout(self.recurrent(x)[0])


torch.manual_seed(0)
for name, recurrent in {
    "lstm": torch.nn.LSTM(INPUTS, H, num_layers=2),
    "gru": torch.nn.GRU(INPUTS, H),
    "rnn": torch.nn.RNN(INPUTS, H),
    "rnn_relu": torch.nn.RNN(INPUTS, H, nonlinearity="relu"),
}.items():
    net = Net(recurrent).eval()
    with torch.no_grad():
        outputs[f"{name}.safetensors"] = net(torch.from_numpy(x)[:, None])[:, 0].numpy()
        save_file(net.state_dict(), f"{name}.safetensors")
        torch.onnx.export(net, (torch.from_numpy(x)[:, None],), f"{name}.onnx", dynamo=False)
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    outputs[f"{name}.onnx"] = session.run(None, {session.get_inputs()[0].name: x[:, None]})[0][:, 0]

keras.utils.set_random_seed(0)
for name, layers in {
    "lstm": [keras.layers.LSTM(H, return_sequences=True), keras.layers.LSTM(H, return_sequences=True)],
    "gru": [keras.layers.GRU(H, return_sequences=True, bias_initializer="random_normal")],
    "rnn": [keras.layers.SimpleRNN(H, return_sequences=True)],
    "rnn_relu": [keras.layers.SimpleRNN(H, return_sequences=True, activation="relu")],
    "reset_before": [keras.layers.GRU(H, return_sequences=True, reset_after=False)],
}.items():
    model = keras.Sequential([keras.layers.Input((None, INPUTS)), *layers, keras.layers.Dense(OUTPUTS)])
    predicted = np.asarray(model(x[None]).detach())[0]
    model.save(f"{name}.keras")
    model.save_weights(f"{name}.weights.h5")
    for file in (f"{name}.keras", f"{name}.weights.h5"):
        outputs[file] = predicted

shapes = {
    "W": (1, 4 * H, INPUTS),
    "R": (1, 4 * H, H),
    "B": (1, 8 * H),
    "P": (1, 3 * H),
    "D": (H, OUTPUTS),
    "b": (OUTPUTS,),
}
arrays = {name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
arrays["axis"] = np.array([1])
graph = helper.make_graph(
    [
        helper.make_node("LSTM", ["x", "W", "R", "B", "", "", "", "P"], ["y"], hidden_size=H),
        helper.make_node("Squeeze", ["y", "axis"], ["h"]),
        helper.make_node("MatMul", ["h", "D"], ["d"]),
        helper.make_node("Add", ["d", "b"], ["out"]),
    ],
    "peephole",
    [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["steps", "streams", INPUTS])],
    [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["steps", "streams", OUTPUTS])],
    [numpy_helper.from_array(array, name) for name, array in arrays.items()],
)
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
made.ir_version = 8
onnx.save(made, "peephole.onnx")
outputs["peephole.onnx"] = onnxruntime.InferenceSession("peephole.onnx").run(None, {"x": x[:, None]})[0][:, 0]

# Added on another day, with random numbers of its own: the GRU of ONNX' default, and weight normalisation.
rng = np.random.default_rng(1)
shapes = {"W": (1, 3 * H, INPUTS), "R": (1, 3 * H, H), "B": (1, 6 * H), "D": (H, OUTPUTS), "b": (OUTPUTS,)}
arrays = {name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
arrays["axis"] = np.array([1])
nodes = [helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=H), *graph.node[1:]]
before = helper.make_graph(
    nodes,
    "reset_before",
    graph.input,
    graph.output,
    [numpy_helper.from_array(array, name) for name, array in arrays.items()],
)
made = helper.make_model(before, opset_imports=[helper.make_opsetid("", 17)])
made.ir_version = 8
onnx.save(made, "reset_before.onnx")
outputs["reset_before.onnx"] = onnxruntime.InferenceSession("reset_before.onnx").run(None, {"x": x[:, None]})[0][:, 0]
torch.manual_seed(1)
net = Net(torch.nn.LSTM(INPUTS, H))
for weight in ("weight_ih_l0", "weight_hh_l0"):
    torch.nn.utils.parametrizations.weight_norm(net.recurrent, weight)
with torch.no_grad():
    net.recurrent.parametrizations.weight_hh_l0.original0.mul_(1.5)
    outputs["weight_norm.safetensors"] = net(torch.from_numpy(x)[:, None])[:, 0].numpy()
save_file(net.state_dict(), "weight_norm.safetensors")
np.savez_compressed("outputs.npz", **outputs)
