"""Weights of other frameworks and the way back: `foreign/make.py` made the files and what the frameworks predict."""

import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from streamlstm.cli.app import run
from streamlstm.detect.detector import Detector
from streamlstm.errors import ModelError, UsageError
from streamlstm.interop.exchange import import_model
from streamlstm.interop.onnx_writing import write
from streamlstm.kernels.cells import CELLS, cell_named
from streamlstm.kernels.layout import HEADS
from streamlstm.model.files import load_model
from streamlstm.model.network import Model, Starts

FOLDER = Path(__file__).parent / "foreign"
with np.load(FOLDER / "outputs.npz") as _file:
    OUTPUTS = dict(_file)
INPUTS = OUTPUTS.pop("inputs")
FILES = sorted(OUTPUTS)
FEATURES, EXOGENOUS = ("a", "b"), ("known",)


def cell_of(name: str) -> str:
    kind = name.partition(".")[0]
    other = {"rnn": "rnn_tanh", "peephole": "peephole_lstm", "reset_before": "gru_before", "weight_norm": "lstm"}
    return other.get(kind, kind)


def imported(name: str) -> Model:
    return import_model(str(FOLDER / name), FEATURES, EXOGENOUS, "rnn_relu" if name.startswith("rnn_relu") else None)


def standing(model: Model) -> Model:
    """The model, knowing a stream `s` whose values are deviations already."""
    stats = np.array([[0.0] * 3 + [1.0] * 6])
    detector = Detector({"threshold": {"kind": "fixed"}}, model=model)
    known = np.ones((1, detector.layout.known_width), np.float32)
    nothing = np.zeros(1, np.int64)
    starts = Starts(("s",), stats, known, np.zeros((1, 0), np.float32), np.zeros(1, np.float32), nothing, nothing)
    return replace(model, starts=starts)


def predicted(model: Model) -> Any:
    """What a detector expects of each record, along the inputs of the frameworks."""
    following = np.concatenate([INPUTS[1:, :2], INPUTS[-1:, :2]])
    x = np.concatenate([following, INPUTS[:, 2:]], axis=1).astype(np.float64)
    return (
        Detector({"threshold": {"kind": "fixed"}}, model=standing(model))
        .process_batch(["s"] * len(x), None, x)
        .expected
    )


@pytest.mark.parametrize("name", FILES)
def test_an_imported_model_predicts_what_its_framework_does(name: str) -> None:
    model = imported(name)
    assert model.network.cell.name == cell_of(name)
    np.testing.assert_allclose(predicted(model), OUTPUTS[name], rtol=0, atol=1e-5)
    assert np.ptp(OUTPUTS[name]) > 0.2


def test_every_cell_is_imported() -> None:
    assert {cell_of(name) for name in FILES} == set(CELLS)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".onnx")])
def test_onnx_runtime_predicts_what_an_exported_model_does(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    plain = imported(name)
    network = plain.network
    skip = rng.normal(size=network.skip.shape).astype(np.float32)
    model = replace(plain, network=replace(network, skip=skip, readout=network.readout * np.float32(1.5)))
    write(model, str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    raw, clipped = rng.normal(size=(2, len(INPUTS), 1, skip.shape[2])).astype(np.float32)
    given = {"x": INPUTS[:, None], "raw": raw, "clipped": clipped}
    states = {of.name: np.zeros((1, 1, network.hidden_size), np.float32) for of in session.get_inputs()[3:]}
    prediction, *after = session.run(None, given | states)
    linear = np.concatenate([of[:, 0] @ skip[head].T for head, of in enumerate((raw, clipped, raw))], axis=1)
    of_h = np.tile(1.5 * (OUTPUTS[name] - network.readout_bias[:2]), HEADS) + network.readout_bias
    np.testing.assert_allclose(prediction[:, 0], of_h + linear, rtol=0, atol=2e-5)
    # two calls, the second from where the first ended
    half = {key: of[:100] for key, of in given.items()}
    _, *between = session.run(None, half | states)
    rest, *ended = session.run(
        None, {key: of[100:] for key, of in given.items()} | dict(zip(states, between, strict=True))
    )
    np.testing.assert_allclose(rest, prediction[100:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ended, after, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".onnx")])
def test_an_exported_model_comes_back_with_the_same_weights(name: str, tmp_path: Path) -> None:
    model = imported(name)
    write(model, str(tmp_path / "m.onnx"))
    exported = onnx.load(tmp_path / "m.onnx")
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in exported.graph.initializer}
    original = onnx.load(FOLDER / name)
    node = next(node for node in original.graph.node if node.op_type in ("LSTM", "GRU", "RNN"))
    stored = {array.name: onnx.numpy_helper.to_array(array) for array in original.graph.initializer}
    np.testing.assert_array_equal(arrays["W_0"], stored[node.input[1]])
    np.testing.assert_array_equal(arrays["R_0"], stored[node.input[2]])
    assert "P_0" not in arrays or np.array_equal(arrays["P_0"], stored["P"])


def test_weight_normalisation_of_older_pytorch_has_other_names(tmp_path: Path) -> None:
    names = {"original0": "_g", "original1": "_v"}
    tensors = {}
    for name, array in safetensors.numpy.load_file(FOLDER / "weight_norm.safetensors").items():
        place, _, kind = name.rpartition(".")
        tensors[place.replace("parametrizations.", "") + names[kind] if kind in names else name] = array
    safetensors.numpy.save_file(tensors, tmp_path / "old.safetensors")
    assert "recurrent.weight_hh_l0_v" in tensors
    old = import_model(str(tmp_path / "old.safetensors"), FEATURES, EXOGENOUS)
    assert old.hash == imported("weight_norm.safetensors").hash


def test_layer_normalisation_is_no_part_of_onnx(tmp_path: Path) -> None:
    plain = imported("lstm.onnx")
    cell = cell_named("lstm", layer_norm=True)
    layers = tuple(of._replace(vectors=np.ones(4 * 5, np.float32)) for of in plain.network.layers)
    model = replace(plain, network=replace(plain.network, cell=cell, layers=layers))
    with pytest.raises(ModelError, match="layer normalisation inside the cell, which no node of ONNX has, is not"):
        write(model, str(tmp_path / "m.onnx"))
    assert not list(tmp_path.iterdir())


def test_the_command_line_brings_weights_in_and_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(tmp_path / "m.safetensors"), str(tmp_path / "m.onnx")
    file = str(FOLDER / "lstm.keras")
    assert run(["model", "import", file, "--model", model, "--features", "a, b", "--exogenous", "known"]) == 0
    assert "lstm, 2 x 5 units; predicts a, b" in capsys.readouterr().out
    assert load_model(model).hash == imported("lstm.keras").hash
    assert run(["model", "show", model]) == 0
    shown = capsys.readouterr().out
    assert "cell: lstm" in shown
    assert f"imported from: {file}" in shown
    assert run(["model", "export", model, out]) == 0
    onnx.checker.check_model(onnx.load(out))
    assert run(["model", "export", model, str(tmp_path / "m.pt")]) == 2
    assert run(["model", "import", file, "--model", model, "--features", "a,b", "--cell", "elman"]) == 2


def test_an_imported_model_detects_after_its_streams_have_calibrated() -> None:
    rng = np.random.default_rng(5)
    x = np.sin(np.arange(900)[:, None] / (9, 7, 5)) * (1, 20, 3) + (0, 100, 5) + 0.05 * rng.normal(size=(900, 3))
    x[800:806, 0] += 8
    config = {"learning": {"learning_rows": 60, "calibrating_rows": 200}}
    batch = Detector(config, model=imported("gru.keras")).process_batch(["s"] * 900, None, x)
    assert batch.flag[800:812].any()
    assert batch.flag[300:800].mean() < 0.05


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "recurrent_activation",
            "hard_sigmoid",
            r"GRU\(recurrent_activation='hard_sigmoid'\) is not supported; sigmoid",
        ),
        ("activation", "elu", r"GRU\(activation='elu'\) is not supported; tanh would work"),
        ("go_backwards", True, r"GRU\(go_backwards=True\) is not supported; False would work"),
    ],
)
def test_an_option_of_keras_that_we_do_not_have_is_named(option: str, value: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    with zipfile.ZipFile(FOLDER / "gru.keras") as given, zipfile.ZipFile(file, "w") as made:
        for name in given.namelist():
            content = given.read(name)
            if name == "config.json":
                config = json.loads(content)
                layer = next(of for of in config["config"]["layers"] if of["class_name"] == "GRU")
                layer["config"][option] = value
                content = json.dumps(config).encode()
            made.writestr(name, content)
    with pytest.raises(ModelError, match=words):
        import_model(str(file), FEATURES, EXOGENOUS)


def changed(tmp_path: Path, change: Any, name: str = "lstm.safetensors") -> str:
    tensors = safetensors.numpy.load_file(FOLDER / name)
    change(tensors)
    path = str(tmp_path / "changed.safetensors")
    safetensors.numpy.save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({"recurrent.weight_hh_l0_reverse": np.zeros(2)}), "bidirectional"),
        (lambda t: t.update({"recurrent.weight_hr_l0": np.zeros(2)}), "proj_size is not supported"),
        (lambda t: t.pop("recurrent.weight_ih_l0"), "0 recurrent modules"),
        (lambda t: t.pop("recurrent.weight_hh_l1"), "weight_hh_l1 is missing"),
        (lambda t: t.pop("readout.weight"), r"one dense readout \(features, 5\) is wanted, found none"),
        (
            lambda t: t.update({"other.weight": np.zeros((4, 5))}),
            "found readout.weight, other.weight|found other.weight",
        ),
        (lambda t: t.update({"recurrent.weight_ih_l1": np.zeros((20, 7), np.float32)}), "layer 1"),
        (lambda t: t.update({"recurrent.weight_hh_l0": np.zeros((10, 5), np.float32)}), "2 blocks of rows"),
        (lambda t: t["readout.bias"].__setitem__(0, np.nan), "not finite"),
    ],
)
def test_a_state_dict_of_another_network_says_why(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        import_model(changed(tmp_path, change), FEATURES, EXOGENOUS)


def test_biases_may_be_absent(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda t: [t.pop(name) for name in list(t) if "bias" in name])
    layer = import_model(path, FEATURES, EXOGENOUS).network.layers[0]
    assert not layer.bias.any()
    assert layer.W_hh.any()


@pytest.mark.parametrize("name", FILES)
def test_columns_must_fit(name: str) -> None:
    with pytest.raises(
        ModelError, match="reads 3 values and predicts 2; 3 features and 0 exogenous columns were named"
    ):
        import_model(str(FOLDER / name), ("a", "b", "c"), ())


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5", ".onnx"])
def test_a_damaged_file_is_a_clear_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    with pytest.raises(ModelError, match="no such file"):
        import_model(str(path), FEATURES, ())
    path.write_bytes(b"nonsense" * 40)
    with pytest.raises(ModelError, match=r"not a|no model"):
        import_model(str(path), FEATURES, ())
    whole = (FOLDER / f"lstm{suffix}").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        import_model(str(path), FEATURES, EXOGENOUS)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ModelError, match="no model or weights of Keras 3"):
        import_model(str(path), FEATURES, ())


def onnx_with(tmp_path: Path, name: str, change: Any) -> str:
    model = onnx.load(FOLDER / name)
    change(next(node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN")), model.graph)
    onnx.save(model, tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


def attribute(name: str, value: Any) -> Any:
    def change(node: Any, graph: Any) -> None:
        for at, old in reversed(list(enumerate(node.attribute))):
            if old.name == name:
                del node.attribute[at]
        node.attribute.append(onnx.helper.make_attribute(name, value))

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("lstm.onnx", attribute("direction", "bidirectional"), "direction bidirectional"),
        ("lstm.onnx", attribute("clip", 3.0), "clip is not supported; no clip would work"),
        ("lstm.onnx", attribute("input_forget", 1), "input_forget"),
        ("lstm.onnx", attribute("activations", ["Sigmoid", "Tanh", "Relu"]), "activations Sigmoid, Tanh, Relu"),
        ("rnn.onnx", lambda node, graph: graph.node.remove(node), "found none"),
        ("peephole.onnx", lambda node, graph: graph.initializer.pop(0), "W are computed"),
        ("peephole.onnx", lambda node, graph: graph.node.pop(2), "one dense readout .* is wanted, found 0"),
    ],
)
def test_a_graph_that_we_do_not_have_says_why(name: str, change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        import_model(onnx_with(tmp_path, name, change), FEATURES, EXOGENOUS)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "lstm.safetensors", tmp_path / "m.pt")
    with pytest.raises(UsageError, match=r"save the state_dict with safetensors\.torch\.save_file"):
        import_model(str(tmp_path / "m.pt"), FEATURES, ())


@pytest.mark.parametrize(("name", "package"), [("lstm.keras", "h5py"), ("lstm.onnx", "onnx")])
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"{name}: needs the package {package}; .*streamlstm\[interop\]"):
        imported(name)
