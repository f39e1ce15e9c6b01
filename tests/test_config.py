"""Configuration: loading, precedence, presets, and every message a user may see."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamlstm.config import Config, config_hash, json_schema, load, model_file, parse_setting, presets, to_yaml
from streamlstm.config.words import sections
from streamlstm.errors import ConfigError

CONFIGS = Path(__file__).parent.parent / "configs"
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into an empty working folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_one(name: str, text: str) -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write_one


def message(source: Any = None, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, **{"environ": {}, **more})
    return str(caught.value)


# Presets


def test_default_yaml_is_the_schemas_defaults_with_every_key_and_a_comment_before_each() -> None:
    text = (CONFIGS / "default.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    assert {section: list(keys) for section, keys in written.items()} == {
        section: list(keys) for section, keys in sections().items()
    }
    assert written == Config().model_dump(mode="json")
    lines = text.splitlines()
    for section, keys in sections().items():
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
        for key in keys:
            at = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {key}:"))
            assert lines[at - 1].startswith("  # "), f"{section}.{key} has no comment"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_loads_by_name_and_by_path(path: Path) -> None:
    assert load(path, environ={}) == load(path.stem, environ={})
    assert path.stem in presets()
    allowed = json_schema()["properties"]
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(allowed)


def test_presets_differ_where_they_say() -> None:
    assert presets() == ["default", "kafka", "multivariate", "online", "univariate"]
    assert load("default", environ={}) == load(None, environ={}) == Config()
    assert load("univariate", environ={}).model.hidden_size < Config().model.hidden_size
    assert load("multivariate", environ={}).score.span is None
    assert load("online", environ={}).threshold.kind == "fixed"
    assert load("kafka", environ={}).outputs.flags == "kafka:streamlstm-flags"


# Sources and precedence


def test_override_beats_environment_beats_file(write: Write) -> None:
    file = write("my.yaml", "model: {hidden_size: 8, num_layers: 2, clip: 3}")
    environ = {"STREAMLSTM__MODEL__HIDDEN_SIZE": "16", "STREAMLSTM__MODEL__NUM_LAYERS": "3", "STREAMLSTM_CPU": "x"}
    model = load(file, environ=environ, overrides={"model.hidden_size": 64}).model
    assert (model.hidden_size, model.num_layers, model.clip) == (64, 3, 3.0)


def test_environment_values_are_yaml() -> None:
    environ = {
        "STREAMLSTM__INPUT__FEATURES": "[a, b]",
        "STREAMLSTM__SCORE__SPAN": "null",
        "STREAMLSTM__SCORE__FLOOR": "1e-4",
        "STREAMLSTM__RUNTIME__THREADS": "auto",
    }
    config = load({"score": {"span": 5}}, environ=environ)
    assert config.input.features == ("a", "b")
    assert (config.score.span, config.score.floor, config.runtime.threads) == (None, 1e-4, "auto")


def test_default_environment_is_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STREAMLSTM__MODEL__HIDDEN_SIZE", "12")
    assert load().model.hidden_size == 12


def test_a_config_is_finished_so_that_the_environment_does_not_undo_overrides() -> None:
    environ = {"STREAMLSTM__THRESHOLD__KIND": "fixed"}
    first = load(None, overrides={"threshold.kind": "sigma"}, environ=environ)
    assert load(first, environ=environ) == first
    assert load(first, environ=environ, overrides={"threshold.level": 2}).threshold.level == 2.0


def test_what_a_model_was_fitted_with_lies_below_everything(write: Write) -> None:
    base = {"model": {"hidden_size": 8, "num_layers": 2}, "threshold": {"scope": "fleet", "expected_streams": 5}}
    file = write("my.yaml", "extends: kafka\nmodel: {num_layers: 3}")
    config = load(file, environ={"STREAMLSTM__THRESHOLD__EXPECTED_STREAMS": "6"}, base=base)
    assert (config.model.hidden_size, config.model.num_layers) == (8, 3)
    assert (config.threshold.scope, config.threshold.expected_streams) == ("fleet", 6)
    finished = load("univariate", environ={})
    assert load(finished, base=base) == finished
    with pytest.raises(ConfigError, match=r"the model's configuration: model\.hidden_size: must"):
        load(None, environ={}, base={"model": {"hidden_size": 2}})


def test_the_model_file_is_known_before_anything_else_is_checked(write: Write) -> None:
    file = write("my.yaml", "model: {file: a.safetensors}\nthreshold: {scope: fleet}")
    assert model_file(file, environ={}) == "a.safetensors"
    assert model_file(file, environ={"STREAMLSTM__MODEL__FILE": "b.safetensors"}) == "b.safetensors"
    assert model_file(file, environ={}, overrides={"model.file": None}) is None
    assert model_file(None, environ={}) is None
    assert model_file(load(None, overrides={"model.file": "c"}, environ={})) == "c"
    assert model_file({"model": {"file": 5}}, environ={}) is None


def test_dict_and_empty_sections_and_empty_file(write: Write) -> None:
    source = {"extends": "univariate", "model": {"hidden_size": 8}, "score": None}
    assert load(source, environ={}).episodes == load("univariate", environ={}).episodes
    assert "extends" in source
    assert load(write("empty.yaml", "# nothing\n"), environ={}) == Config()
    assert load(write("empty.yaml", "model:\n"), environ={}) == Config()


def test_extends_chains_and_is_relative_to_the_file(write: Write) -> None:
    Path("deep").mkdir()
    write("deep/base.yaml", "extends: univariate\nmodel: {hidden_size: 8}\ntraining: {lanes: 2}")
    write("deep/middle.yaml", "extends: base.yaml\ntraining: {lanes: 3}")
    config = load(write("top.yaml", "extends: deep/middle.yaml"), environ={})
    assert (config.model.hidden_size, config.training.lanes) == (8, 3)
    assert config.threshold == load("univariate", environ={}).threshold


# Messages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  hidden_sise: 64", "my.yaml:2: model.hidden_sise: unknown key; did you mean 'hidden_size'?"),
        ("\nmodel:\n  hidden_size: 600", "my.yaml:3: model.hidden_size: must be between 4 and 512, got 600"),
        ("modle: {}", "my.yaml:1: modle: unknown section; did you mean 'model'?"),
        ("threads: 2", "my.yaml:1: threads: unknown section; did you mean 'runtime.threads'?"),
        ("model: {level: 2}", "my.yaml:1: model.level: unknown key; did you mean 'threshold.level'?"),
        (
            "model: {zzz: 2}",
            "my.yaml:1: model.zzz: unknown key; the keys of model are: file, cell, weights, hidden_size, num_layers",
        ),
        (
            "model: 5",
            "my.yaml:1: model: must be a section with keys of: file, cell, weights, hidden_size, num_layers, "
            "layer_norm, state, clip, calendar; got 5",
        ),
        ("model: {hidden_size: 4.5}", "must be a whole number between 4 and 512, got 4.5"),
        ("model: {hidden_size: much}", "must be a whole number between 4 and 512, got 'much'"),
        ("model: {hidden_size: yes}", "must be a whole number between 4 and 512, got true"),
        ("model: {clip: .nan}", "must be a number above 0, got nan; infinity and NaN are no values here"),
        ("training: {holdout: 0.9}", "training.holdout: must be at least 0 and below 0.9, got 0.9"),
        ("training: {rate: 2}", "training.rate: must be above 0 and at most 1, got 2"),
        ("kafka: {client: [1]}", "kafka.client: must be a mapping, got [1]"),
        ("kafka: {topics: readings}", "kafka.topics: must be a list of names, got 'readings'; write [readings]"),
        ("delivery: {mode: twice}", "must be one of: at_least_once, exactly_once; got 'twice'"),
        ("service: {stop_budget_s: 0}", "service.stop_budget_s: must be above 0 and at most 86400, got 0"),
        ("messages: {separator: ab}", "messages.separator: must be one character, got 'ab'"),
        ("kafka: {group_id: ''}", "kafka.group_id: must be text that is not empty, got ''"),
        ("kafka: {group_id: 5}", "kafka.group_id: must be text that is not empty, got 5; put it in quotes"),
        ("episodes: {min_rows: 0}", "episodes.min_rows: must be at least 1, got 0"),
        (
            "threshold: {kind: sigmas}",
            "must be one of: contrast, fixed, sigma, quantile, ndt, spot, dspot, likelihood, conformal; got 'sigmas'",
        ),
        ("threshold: {mirror: 3}", "threshold.mirror: must be true or false, got 3"),
        ("threshold: {level: null}", "threshold.level: must be a number above 0, got null"),
        ("runtime: {threads: 0}", "must be a whole number between 1 and 256 or auto, got 0"),
        ("score: {span: 0}", "score.span: must be at least 1 or null, got 0"),
        ("input: {key: 5}", "input.key: must be text or a list of names or null, got 5; put it in quotes"),
        ("input: {features: a}", "input.features: must be a list of names, got 'a'; write [a]"),
        ("input:\n  features:\n  - a\n  - 5", "my.yaml:4: input.features[1]: must be text, got 5; put it in quotes"),
        ("forecast: {quantiles: 5}", "forecast.quantiles: must be a list of numbers, each above 0 and below 1, got 5"),
        ("forecast: {quantiles: [.1, 1]}", "forecast.quantiles[1]: must be a number above 0 and below 1, got 1"),
        (
            "forecast: {quantiles: [.5, .1]}",
            "my.yaml:1: forecast: quantiles must ascend, each once, got [0.5, 0.1]; sort them",
        ),
        ("threshold:\n  scope: fleet", "my.yaml:1: threshold: scope: fleet needs expected_streams"),
        ("input: {key: a, time: a}", "my.yaml:1: input: column 'a' is named twice"),
        ("model: {}\nscore: {}\nmodel: {}", "my.yaml:3: model: stands twice, first on line 1; keep one"),
        ("model:\n  clip: 1\n  clip: 2", "my.yaml:3: model.clip: stands twice, first on line 2; keep one"),
        ("model: [1, 2\nscore: 3", "my.yaml:2: is no valid YAML: "),
        ("model:\n\t- 1", "my.yaml:2: is no valid YAML: found character '\\t'"),
        ("- a\n- b", "my.yaml:1: must be a mapping of sections, as in 'model: {hidden_size: 32}', but holds a list"),
        ("just words", "my.yaml:1: must be a mapping of sections"),
        ("model: {clip: 2020-02-31}", "my.yaml: holds a value that YAML cannot read (day "),
        ("model: {clip: *nowhere}", "my.yaml:1: is no valid YAML: found undefined alias"),
        ("--- {}\n--- {}", "my.yaml:2: is no valid YAML: but found another document"),
        ("[" * 5000, "my.yaml: is nested too deeply"),
        ("model: &m {clip: *m}", "my.yaml:1: "),
        ("extends: 5", "my.yaml:1: extends: must be the name of a preset or a path, got 5; the presets are: default, "),
        ("extends: univariat", "my.yaml:1: extends: no such file or preset 'univariat'; did you mean 'univariate'?"),
        ("extends: my.yaml", "my.yaml:1: extends: goes in a circle: my.yaml -> my.yaml; remove one of these"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(write: Write, text: str, expected: str) -> None:
    actual = message(write("my.yaml", text))
    assert expected in actual
    assert len(actual.splitlines()) == 1


def test_bytes_that_are_no_text(write: Write) -> None:
    write("my.yaml", "")
    Path("my.yaml").write_bytes(b"model: {hidden_size: \xff}")
    assert message("my.yaml").startswith("my.yaml: is no valid YAML: ")


def test_every_problem_of_every_layer_is_told(write: Write) -> None:
    file = write("my.yaml", "model:\n  hiden_size: 1\n  num_layers: 7\nscore: {span: 0}")
    environ = {"STREAMLSTM__MODEL__CLIP": "-1"}
    lines = message(file, environ=environ, overrides={"runtime.threds": 2}).splitlines()
    assert sorted(lines) == [
        "--set runtime.threds: unknown key; did you mean 'runtime.threads'?",
        "environment STREAMLSTM__MODEL__CLIP: must be above 0, got -1",
        "my.yaml:2: model.hiden_size: unknown key; did you mean 'hidden_size'?",
        "my.yaml:3: model.num_layers: must be between 1 and 4, got 7",
        "my.yaml:4: score.span: must be at least 1 or null, got 0",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MODEL__HIDDEN_SIZ", "8", "unknown key; did you mean STREAMLSTM__MODEL__HIDDEN_SIZE?"),
        ("MODLE__HIDEN_SIZE", "8", "unknown section; did you mean STREAMLSTM__MODEL__HIDDEN_SIZE?"),
        (
            "MODEL",
            "8",
            "must be a section with keys of: file, cell, weights, hidden_size, num_layers",
        ),
        ("MODEL__HIDDEN_SIZE", "600", "must be between 4 and 512, got 600"),
        ("MODEL__HIDDEN_SIZE", "[", "'[' is no YAML value ("),
    ],
)
def test_environment_names_the_variable(variable: str, value: str, expected: str) -> None:
    actual = message(environ={f"STREAMLSTM__{variable}": value})
    assert actual.startswith(f"environment STREAMLSTM__{variable}: {expected}")


def test_overrides_and_dicts_name_themselves() -> None:
    assert (
        message(overrides={"model.hidden_size": 600}) == "--set model.hidden_size: must be between 4 and 512, got 600"
    )
    assert message(overrides={"modle.clip": 1}).endswith("did you mean 'model.clip'?")
    assert message({"model": {"clip": 0}}) == "configuration: model.clip: must be above 0, got 0"


def test_missing_file_names_path_and_presets(write: Write) -> None:
    write("other.yaml", "")
    assert message("gone.yaml") == (
        "gone.yaml: no such file or preset; did you mean 'online'? "
        "the presets are: default, kafka, multivariate, online, univariate"
    )
    assert "did you mean 'multivariate'?" in message("multivariat")
    assert message(".").startswith(".: cannot be read: ")


def test_long_circle_is_told(write: Write) -> None:
    write("b.yaml", "extends: a.yaml")
    assert "a.yaml -> b.yaml -> a.yaml" in message(write("a.yaml", "extends: b.yaml"))


def test_parse_setting() -> None:
    assert parse_setting("threshold.kind=sigma") == ("threshold.kind", "sigma")
    assert parse_setting("input.features=[a, b]") == ("input.features", ["a", "b"])
    with pytest.raises(ConfigError, match="must read SECTION"):
        parse_setting("threshold.kind")


# Export

CONFIG = st.builds(
    lambda size, rate, names, span, threads: Config.model_validate(
        {
            "model": {"hidden_size": size},
            "learning": {"rate": rate},
            "input": {"features": names, "time": None},
            "score": {"span": span},
            "runtime": {"threads": threads},
        }
    ),
    st.integers(4, 512),
    st.floats(1e-12, 1),
    st.lists(st.text(), unique=True),
    st.none() | st.floats(1, 1e300),
    st.integers(1, 256) | st.just("auto"),
)


@settings(max_examples=60, deadline=None)
@given(CONFIG)
def test_yaml_reads_back_equal(config: Config) -> None:
    assert load(yaml.safe_load(to_yaml(config)), environ={}) == config
    assert list(yaml.safe_load(to_yaml(config))) == list(Config.model_fields)


@settings(max_examples=30, deadline=None)
@given(CONFIG)
def test_hash_ignores_runtime_only(config: Config) -> None:
    digest = config_hash(config)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert config_hash(load(config, overrides={"runtime.batch_rows": 7, "runtime.threads": 3})) == digest
    assert config_hash(load(config, overrides={"forecast.horizons": 3})) == digest  # read on demand, no score knows
    assert config_hash(load(config, overrides={"training.seed": 1})) != digest


def test_secrets_are_hidden_on_request() -> None:
    client = {
        "sasl_plain_username": "me",
        "sasl_plain_password": "open sesame",
        "ssl_password": {"env": "SSL_PASSWORD"},
        "ssl_keyfile": "my.key",
        "socks5_proxy_url": "socks5://me:sesame@proxy:1080",
    }
    config = load({"kafka": {"client": client}, "outputs": {"flags": "https://me:sesame@host/hook"}}, environ={})
    shown = yaml.safe_load(to_yaml(config, secrets=False))
    assert shown["kafka"]["client"] == {
        "sasl_plain_username": "me",
        "sasl_plain_password": "***",
        "ssl_password": {"env": "SSL_PASSWORD"},
        "ssl_keyfile": "***",
        "socks5_proxy_url": "socks5://***@proxy:1080",
    }
    assert shown["outputs"]["flags"] == "https://***@host/hook"
    assert shown["input"]["key"] is None
    assert load(yaml.safe_load(to_yaml(config)), environ={}) == config


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().model.hidden_size = 3  # type: ignore[misc]


def test_json_schema_knows_extends_and_every_section() -> None:
    assert list(json_schema()["properties"]) == ["extends", *sections()]
