"""The configuration's schema: every key, its range, its default. `configs/default.yaml` says what each means."""

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rows = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Counted = Annotated[int, Field(ge=1, le=1_000_000)]
Repeats = Annotated[int, Field(ge=2, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Input(Section):
    """Which columns of files or messages mean what; empty means found from the data (see README)."""

    time: str | None = None
    key: str | tuple[str, ...] | None = None
    features: tuple[str, ...] = ()
    exogenous: tuple[str, ...] = ()
    time_unit: Literal["auto", "iso", "s", "ms", "us", "ns"] = "auto"

    @model_validator(mode="after")
    def _columns_have_one_meaning(self) -> "Input":
        keys = (self.key,) if isinstance(self.key, str) else self.key or ()
        named = [c for c in (self.time, *keys, *self.features, *self.exogenous) if c is not None]
        repeated = sorted({c for c in named if named.count(c) > 1})
        if repeated:
            raise ValueError(f"column {repeated[0]!r} is named twice; each column has one meaning")
        return self


class Messages(Section):
    """How the values of Kafka records are written; `input` says what their fields mean."""

    format: Literal["json", "array", "csv", "float32", "float64", "avro", "python"] = "json"
    columns: tuple[str, ...] = ()  # array, csv, packed: what stands at each place
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    schema_file: str | None = None  # avro
    decoder: str | None = None  # python: package.module:name


class Kafka(Section):
    """Where records come from."""

    bootstrap_servers: tuple[str, ...] = ("localhost:9092",)
    topics: tuple[str, ...] = ()
    group_id: Annotated[str, Field(min_length=1)] = "streamlstm"
    group_instance_id: str | None = None
    assignor: Literal["cooperative-sticky", "range", "roundrobin"] = "cooperative-sticky"
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    start: Literal["earliest", "latest"] = "earliest"
    client: dict[str, Any] = {}  # any other setting of kafka-python


class Model(Section):
    """The network: a linear autoregressive skip plus recurrent layers on what the skip leaves over."""

    file: str | None = None
    cell: Literal["lstm", "peephole_lstm", "gru", "gru_before", "rnn_tanh", "rnn_relu"] = "lstm"
    weights: Literal["shared", "per_stream"] = "shared"
    hidden_size: Annotated[int, Field(ge=4, le=512)] = 32
    num_layers: Annotated[int, Field(ge=1, le=4)] = 1
    layer_norm: bool = False  # inside the cell, of the sums that read h
    state: Literal["float32", "float16"] = "float32"  # h and c of a stream between its records; weights must be frozen
    clip: Annotated[float, Field(gt=0)] = 5.0  # standard deviations; of the LSTM's inputs, never of the score
    calendar: bool = True  # hour of day and day of week as known inputs of the skips


class Training(Section):
    """`streamlstm fit`: ridge for the skip, truncated back-propagation through time for the LSTM."""

    updates: Annotated[int, Field(ge=0, le=1_000_000)] = 600
    lanes: Annotated[int, Field(ge=1, le=1024)] = 16
    window: Annotated[int, Field(ge=2, le=4096)] = 32
    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    schedule: Literal["cosine", "constant", "step", "one_cycle"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0  # of matrices alone
    recurrent_start: Literal["uniform", "orthogonal"] = "uniform"
    weight_norm: bool = False  # of each unit's weights of each gate
    input_norm: bool = False  # batch normalisation; not with model.layer_norm
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of what passes between layers
    recurrent_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scheduled_sampling: Annotated[float, Field(ge=0, le=1)] = 0.0  # at the last update
    loss: Literal["huber", "squared"] = "huber"
    huber: Annotated[float, Field(gt=0)] = 3.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    clip_value: Annotated[float, Field(gt=0)] | None = None
    ridge: Annotated[float, Field(gt=0)] = 1.0
    holdout: Annotated[float, Field(ge=0, lt=0.9)] = 0.0
    patience: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Forecast(Section):
    """What a model that is fitted can say, on demand, of the records to come; a part of the model, not of scoring."""

    horizons: Annotated[int, Field(ge=0, le=512)] = 0  # records ahead
    loss: Literal["gaussian", "pinball"] = "gaussian"
    quantiles: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.05, 0.5, 0.95)  # pinball

    @model_validator(mode="after")
    def _quantiles_ascend(self) -> "Forecast":
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles must ascend, each once, got {list(self.quantiles)}; sort them")
        return self


class Learning(Section):
    """What the detector goes on to learn in use. `auto`: frozen with a model file, online without."""

    mode: Literal["auto", "frozen", "online"] = "auto"
    update_every: Annotated[int, Field(ge=16, le=65536)] = 64
    window: Annotated[int, Field(ge=16, le=1024)] = 16
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    learning_rows: Rows = 100
    calibrating_rows: Rows = 300
    extreme_margin: Annotated[float, Field(ge=0, le=100)] = 0.05  # of the range shown so far; 0: no such rule
    max_known_streams: Annotated[int, Field(ge=64)] | None = None  # of a partition; others are forgotten


class Score(Section):
    """From errors to one number per record: the sum over its parts of weight * ln(1 + part)."""

    heads: Annotated[tuple[Literal["raw", "clipped", "none"], ...], Field(min_length=1)] = ("raw", "clipped", "none")
    variability: Annotated[float, Field(ge=0, le=10)] = 0.5
    range: Annotated[float, Field(ge=0, le=10)] = 0.35

    span: Annotated[float, Field(ge=1)] | None = None  # rows; None: 70 / sqrt(number of features), at least 1
    scale_span: Annotated[float, Field(ge=1)] = 1000.0
    floor: Annotated[float, Field(gt=0)] = 1e-3  # least error scale, in standard deviations of the feature


class Threshold(Section):
    """Above which score a record is anomalous."""

    kind: Literal["contrast", "fixed", "sigma", "quantile", "ndt", "spot", "dspot", "likelihood", "conformal"] = (
        "contrast"
    )
    false_alarms_per_day: Annotated[float, Field(gt=0)] = 1.0
    scope: Literal["stream", "fleet"] = "stream"
    expected_streams: Rows | None = None
    level: Annotated[float, Field(gt=0)] = 5.0  # fixed: the threshold itself
    sigmas: Annotated[float, Field(gt=0)] = 4.0  # sigma: standard deviations above the mean
    memory_rows: Annotated[int, Field(ge=100)] = 10_000  # older scores fade
    depth_rows: Annotated[int, Field(ge=10)] = 450  # dspot: span of the local mean; Siffer et al. take 450 and 10
    mirror: bool = True  # ndt: scores that are unusually small are anomalous, too
    floor: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _fleet_needs_a_size(self) -> "Threshold":
        if self.scope == "fleet" and self.expected_streams is None:
            raise ValueError("scope: fleet needs expected_streams, the number of streams that share the false alarms")
        return self


class Episodes(Section):
    """From anomalous records to alarms; everything is counted in records of the stream."""

    min_rows: Rows = 1
    merge_rows: Annotated[int, Field(ge=0)] = 47
    refractory_rows: Annotated[int, Field(ge=0)] = 0
    hysteresis: Annotated[float, Field(gt=0, le=1)] = 0.75
    accept_after_rows: Rows = 130


class Rules(Section):
    """What is anomalous whatever the model says, by feature; `flat_rows` and `missing_rows` may hold for all features."""

    minimum: dict[str, float] = {}
    maximum: dict[str, float] = {}
    max_step: dict[str, Annotated[float, Field(ge=0)]] = {}
    flat_rows: Repeats | dict[str, Repeats] | None = None
    missing_rows: Counted | dict[str, Counted] | None = None
    silent_s: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> "Rules":
        for feature in self.minimum.keys() & self.maximum.keys():
            if self.minimum[feature] > self.maximum[feature]:
                raise ValueError(
                    f"the minimum of {feature!r}, {self.minimum[feature]}, lies above its maximum, {self.maximum[feature]}"
                )
        return self


class Time(Section):
    """What a stream does with records that come late or twice, and after a gap; by event time."""

    late: Literal["accept", "drop", "reorder"] = "accept"
    reorder_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None  # how far back older records are awaited
    repeated: Literal["accept", "drop"] = "accept"
    gap_s: Annotated[float, Field(gt=0)] | None = None
    on_gap: Literal["carry", "decay", "reset"] = "reset"

    @model_validator(mode="after")
    def _reorder_has_a_window(self) -> "Time":
        if self.late == "reorder" and self.reorder_s is None:
            raise ValueError("late: reorder needs reorder_s, for how many seconds of their times records wait; set it")
        if self.late != "reorder" and self.reorder_s is not None:
            raise ValueError(f"reorder_s is for late: reorder alone, and late is {self.late}; set reorder_s: null")
        return self


class Runtime(Section):
    """How the work is done; nothing here changes a bit of the output, but for `backend`."""

    backend: Literal["cpu", "cuda", "auto"] = "cpu"
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 1
    batch_rows: Annotated[int, Field(ge=1, le=4_194_304)] = 65_536
    max_streams: Annotated[int, Field(ge=64)] | None = None

    @property
    def num_threads(self) -> int:
        """`threads` on this machine."""
        return (os.cpu_count() or 1) if self.threads == "auto" else self.threads


class Outputs(Section):
    """Where the daemon writes: a path by suffix, `-`, `kafka:TOPIC` or an http(s) address; null for nowhere."""

    flags: str | None = None
    scores: str | None = None
    detail: Literal["flags", "all"] = "flags"
    episodes: str | None = None
    dead_letters: str = "dead-letters.jsonl"
    queue_rows: Rows = 10_000
    timeout_s: Seconds = 10.0


class Delivery(Section):
    """State and offsets: what is kept, how often, and what happens when they do not fit each other."""

    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    snapshots: str = "streamlstm-state"  # a folder, or kafka:TOPIC
    snapshot_interval_s: Seconds = 30.0
    commit_interval_s: Seconds = 1.0
    transactional_id: str | None = None
    on_missing_state: Literal["cold_start", "fail"] = "cold_start"
    on_missing_offsets: Literal["earliest", "latest", "cold_start", "fail"] = "fail"
    on_new_topic: Literal["cold_start", "fail"] = "fail"
    on_mismatch: Literal["cold_start", "fail"] = "fail"
    on_class_change: Literal["accept", "fail"] = "fail"


class Service(Section):
    """Manners of the daemon."""

    log_format: Literal["text", "json"] = "text"
    status_interval_s: Seconds = 60.0
    stop_budget_s: Seconds = 20.0
    revoke_budget_s: Seconds = 10.0


class Config(Section):
    """A whole configuration. Immutable; `streamlstm.config.load` builds it from YAML, environment and command line."""

    input: Input = Input()
    messages: Messages = Messages()
    kafka: Kafka = Kafka()
    model: Model = Model()
    training: Training = Training()
    forecast: Forecast = Forecast()
    learning: Learning = Learning()
    score: Score = Score()
    threshold: Threshold = Threshold()
    episodes: Episodes = Episodes()
    rules: Rules = Rules()
    time: Time = Time()
    runtime: Runtime = Runtime()
    outputs: Outputs = Outputs()
    delivery: Delivery = Delivery()
    service: Service = Service()
