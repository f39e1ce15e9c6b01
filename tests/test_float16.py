"""State kept as float16: half the bytes of h and c, scores that differ little, and the same bits however it is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit, types
from numba.extending import intrinsic

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import UsageError
from streamlstm.kernels import interpreting, vector
from streamlstm.kernels.vector import Emitter, data
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


@intrinsic
def halved(typing_context: Any, floats: Any, halves: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (data(context, builder, *of) for of in zip(signature.args[:2], arguments[:2], strict=True))
        e = Emitter(builder)
        e.store_half(e.load(source, arguments[2]), target, arguments[2])
        return context.get_dummy_value()

    return types.void(floats, halves, types.int64), generate


@intrinsic
def doubled(typing_context: Any, halves: Any, floats: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (data(context, builder, *of) for of in zip(signature.args[:2], arguments[:2], strict=True))
        e = Emitter(builder)
        e.store(e.load_half(source, arguments[2]), target, arguments[2])
        return context.get_dummy_value()

    return types.void(halves, floats, types.int64), generate


@pytest.mark.skipif(interpreting.INTERPRETED, reason="of vector code alone")
@pytest.mark.parametrize("own", [False, True])
def test_float16_are_those_of_ieee_where_the_host_converts_and_where_it_does_not(
    monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr(vector, "HAS_FLOAT16", vector.HAS_FLOAT16 and not own)

    @njit  # type: ignore[untyped-decorator]
    def widen(halves: Any, floats: Any) -> None:
        for at in range(0, floats.shape[0], 16):
            doubled(halves, floats, at)

    @njit  # type: ignore[untyped-decorator]
    def narrow(floats: Any, halves: Any) -> None:
        for at in range(0, floats.shape[0], 16):
            halved(floats, halves, at)

    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    floats = np.zeros(65536, np.float32)
    widen(every.view(np.float32), floats)
    exact = every.astype(np.float32)
    numbers = ~np.isnan(exact)
    assert floats[numbers].tobytes() == exact[numbers].tobytes()
    assert np.isnan(floats[~numbers]).all()
    bits = np.random.default_rng(0).integers(0, 2**32, 1 << 18, dtype=np.uint32)
    with np.errstate(all="ignore"):
        between = [exact * np.float32(1 + 2.0**-11), np.nextafter(exact, np.float32(np.inf)), -exact]
        x = np.concatenate([bits.view(np.float32), *between])
        expected = x.astype(np.float16)
    found = np.zeros(len(x), np.float16)
    narrow(x, found.view(np.float32))
    numbers = ~np.isnan(expected)
    assert found[numbers].tobytes() == expected[numbers].tobytes()
    assert np.isnan(found[~numbers]).all()
