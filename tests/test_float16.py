"""State kept as float16: half the bytes of h and c, scores that differ little, and the same bits however it is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import UsageError
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import load_model, save_model
from streamlstm.model.layout import make_layout
from streamlstm.model.network import Model

Make = Callable[..., dict[str, Recording]]


def settings(**model: Any) -> dict[str, Any]:
    """A network of three layers' units that are no multiple of 16."""
    return {"model": {"hidden_size": 20, "num_layers": 2} | model, "training": {"updates": 100}}


@pytest.fixture
def model(synthetic: Make) -> Model:
    return fit(synthetic(streams=2, features=2), Config.model_validate(settings()), ("a", "b"))


@pytest.mark.parametrize("cell", ["lstm", "gru_before"])
def test_scores_differ_little_and_keep_their_bits(synthetic: Make, tmp_path: Path, cell: str) -> None:
    given = Config.model_validate(settings(cell=cell, state="float16"))
    save_model(fit(synthetic(streams=2, features=2), given, ("a", "b")), tmp_path / "model")
    half = load_model(tmp_path / "model")
    whole = Detector({"model": {"state": "float32"}}, model=half)
    x = np.concatenate([r.x for r in synthetic(streams=2, rows=600, features=2, seed=5).values()])
    keys, time = ["s", "t", "t"] * (len(x) // 3), np.arange(len(x) // 3 * 3) * 60_000_000_000
    x = x[: len(keys)]
    exact, rough = whole.process_batch(keys, time, x), (at_once := Detector(model=half)).process_batch(keys, time, x)
    assert not np.array_equal(rough.score, exact.score)
    assert np.abs(rough.score - exact.score).max() < 0.05
    assert np.nanmax(np.abs(rough.expected - exact.expected)) < 0.01 * x.std()
    assert (rough.flag == exact.flag).mean() > 0.99
    parts = Detector(model=half)
    first = parts.process_batch(keys[:137], time[:137], x[:137]).score
    parts.snapshot(tmp_path / "snapshot")
    again = Detector.restore(tmp_path / "snapshot")
    again.threads = 2
    rest = again.process_batch(keys[137:], time[137:], x[137:]).score
    assert np.array_equal(np.concatenate([first, rest]), rough.score)
    for key in ("s", "t"):
        one, other = at_once.pool.copy_of(key), again.pool.copy_of(key)
        assert one.state.tobytes() == other.state.tobytes()


def test_a_stream_takes_half_the_bytes_of_h_and_c() -> None:
    sizes = [
        make_layout(Config.model_validate({"model": {"state": state}}), 1, 0, online=False).bytes_per_stream
        for state in ("float32", "float16")
    ]
    assert sizes[0] - sizes[1] == 2 * 32 * 2


def test_weights_that_learn_need_float32(model: Model) -> None:
    for given in (None, model):
        with pytest.raises(UsageError, match=r"model\.state: float16 needs frozen weights; fit a model, or leave"):
            Detector({"model": {"state": "float16"}, "learning": {"mode": "online"}}, model=given, features=("a", "b"))
