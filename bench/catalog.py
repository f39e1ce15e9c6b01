"""What there is to run: benchmarks, their cases, and who competes in each. Nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

OURS = "ours"
TIMES = ("ns/event", "ps/multiply-add", "ms at p99")
"""Units whose values are compared: ours over a peer's."""

SIZES = ((1, 32), (8, 64), (25, 80), (38, 128))
LABELS = {
    OURS: "streamlstm",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime_bound": "ONNX Runtime (bound arrays)",
    "torch": "PyTorch",
    "two_threads": "streamlstm, two threads",
    "torch_cuda": "PyTorch on the GPU",
    "cpu": "streamlstm, one thread of the CPU",
    "deep_river": "deep-river, rolling LSTM",
    "sgemm": "matrix product alone (sgemm)",
    "compiled_call": "streamlstm, whole call",
    "compiled_call_two_threads": "streamlstm, whole call, two threads",
    "peephole_lstm": "peephole LSTM",
    "gru": "GRU",
    "gru_before": "GRU that resets first",
    "rnn_tanh": "tanh RNN",
    "rnn_relu": "ReLU RNN",
}
"""Contenders in words, where a picture or README shows them."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The largest share of `peer`'s time that ours may take, by processor (as STREAMLSTM_CPU names it) and size."""

    peer: str
    shares: Mapping[str, Mapping[tuple[int, int], float]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its module in `bench`, what it tells, its cases (`I=1,H=32,batch=1`), contenders of every case.

    `own` are the contenders of cases that have others. `peers` are those whose times ours are divided by. `once` are
    cases that are run in the first round alone: they are about memory, which does not vary, or take long. With
    `session` the module also has a context manager of that name, which holds what all contenders of a run share.
    `goal` is the limit of our time.
    """

    name: str
    says: str
    cases: tuple[str, ...]
    contenders: tuple[str, ...]
    once: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    peers: tuple[str, ...] = ("onnxruntime", "onnxruntime_bound")
    session: bool = False
    goal: Goal | None = None

    @property
    def over_hidden(self) -> bool:
        """Whether its cases differ by the layer's size alone, so that a picture shows them over H."""
        if len({numbers(case).get("H") for case in self.cases}) == 1:
            return False
        others = {tuple(part for part in words(case).items() if part[0] not in ("I", "H")) for case in self.cases}
        return len(others) == 1

    def competing(self, case: str) -> tuple[str, ...]:
        """The contenders of a case."""
        return self.own.get(case, self.contenders)


def step_case(inputs: int, hidden: int, batch: int) -> str:
    """The case of one layer's size and a batch."""
    return f"I={inputs},H={hidden},batch={batch}"


def numbers(case: str) -> dict[str, int]:
    """The case's whole numbers by name; other values are left out."""
    pairs = (pair.partition("=") for pair in case.split(","))
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def words(case: str) -> dict[str, str]:
    """The case's values by name, as text."""
    return dict(pair.split("=") for pair in case.split(","))  # type: ignore[misc]


def _replay(events: int, form: str) -> str:
    return f"streams=1000,events={events},format={form}"


_TORCH = ("torch",) if find_spec("torch") else ()  # large: it competes where it is installed
_ALONE = {(1, 32): 1 / 6.5, (8, 64): 1 / 5}
_DEEP_RIVER = ("deep_river",) if find_spec("deep_river") else ()
_CELLS = ("peephole_lstm", "gru", "gru_before", "rnn_tanh", "rnn_relu")
_KAFKA = {
    "decode": (OURS, "consumer_performance", "confluent", "kafka_python"),
    "scored": (OURS, "confluent_json", "kafka_python_json", "quix", "quix_state"),
    "scored_exactly_once": (OURS, "at_least_once"),
    "latency": (OURS, "echo"),
}

CATALOG = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "single",
            "one event, one compiled call from Python: the bare LSTM step against ONNX Runtime",
            tuple(step_case(inputs, hidden, 1) for inputs, hidden in SIZES[:2]),
            (OURS, "onnxruntime", "onnxruntime_bound"),
            goal=Goal("onnxruntime_bound", {"avx2": _ALONE, "avx512": _ALONE}),
        ),
        Benchmark(
            "process",
            "one event through Detector.process, all of it, against ONNX Runtime's bare step",
            (step_case(8, 64, 1),),
            (OURS, "onnxruntime", "onnxruntime_bound"),
        ),
        Benchmark(
            "step",
            "8192 streams, one event each, one thread: bare step and whole compiled call against ONNX Runtime and sgemm",
            tuple(step_case(inputs, hidden, 8192) for inputs, hidden in SIZES),
            (OURS, "onnxruntime", *_TORCH, "sgemm", "compiled_call", "compiled_call_two_threads"),
            peers=("onnxruntime", *_TORCH, "sgemm"),
            goal=Goal(
                "onnxruntime",
                {"avx2": dict.fromkeys(SIZES, 1.0), "avx512": dict(zip(SIZES, (0.65, 0.65, 0.65, 0.75), strict=True))},
            ),
        ),
        Benchmark(
            "cells",
            "8192 streams: the bare step of every cell per multiply-add, the LSTM's over each other one's",
            (step_case(8, 64, 8192),),
            (OURS, *_CELLS),
            peers=_CELLS,
        ),
        Benchmark(
            "sequence",
            "one stream through 10 000 steps of the bare layer in one call, against ONNX Runtime and PyTorch",
            ("I=1,H=32,steps=10000",),
            (OURS, "onnxruntime", *_TORCH),
            peers=("onnxruntime", *_TORCH),
        ),
        Benchmark(
            "scale",
            "the whole compiled call, round robin over 1 000 to 1 000 000 streams",
            tuple(f"I=1,H=32,streams={streams}" for streams in (1000, 10_000, 100_000, 1_000_000)),
            (OURS,),
        ),
        Benchmark(
            "fit",
            "one update of a training (forward, backward, clipping, Adam) on 64 lanes of 100 rows, per row and lane",
            tuple(f"I={inputs},H={hidden},batch=64,window=100" for inputs, hidden in SIZES[:3]),
            (OURS, "two_threads", *_TORCH),
            peers=_TORCH,
        ),
        Benchmark(
            "online",
            "learning from every record, H = 32, windows of 16, against deep-river's rolling LSTM where it is installed",
            ("streams=1,H=32,window=16", "streams=1000,H=32,window=16"),
            (OURS,),
            own={"streams=1,H=32,window=16": (OURS, *_DEEP_RIVER)},
            peers=_DEEP_RIVER,
        ),
        Benchmark(
            "replay",
            "files to scores and flags, one thread: events per second, and peak memory of a file four times as long",
            tuple(_replay(events, form) for events in (1000, 4000) for form in ("parquet", "csv")),
            (OURS,),
            once=tuple(_replay(4000, form) for form in ("parquet", "csv")),
        ),
        Benchmark(
            "cuda",
            "only where a GPU is: the step with all in its memory, the whole call with its copies, one event",
            (
                *(f"work=step,I={I},H={H},batch={B}" for B in (65_536, 1_048_576) for I, H in (*SIZES[:2], SIZES[3])),
                "work=call,I=8,H=64,batch=65536",
                "work=event,I=1,H=32,batch=1",
            ),
            (OURS, *(("torch_cuda",) if _TORCH else ())),
            own={"work=call,I=8,H=64,batch=65536": (OURS, "cpu"), "work=event,I=1,H=32,batch=1": (OURS,)},
            peers=("torch_cuda", "cpu"),
        ),
        Benchmark(
            "kafka",
            "a real broker, one core for the client: decoding, scoring, latency, snapshots, memory of the daemon",
            (*_KAFKA, "snapshot_folder", "snapshot_topic", "memory"),
            (OURS,),
            once=("snapshot_topic", "memory"),
            own=_KAFKA,
            peers=tuple(peer for contenders in _KAFKA.values() for peer in contenders[1:]),
            session=True,
        ),
    )
}
