"""From the section `kafka` to the settings of a kafka-python client: what is allowed, and secrets."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from streamlstm.config import schema
from streamlstm.errors import ConfigError

Kind = Literal["consumer", "producer", "admin"]
DEFAULTS: dict[Kind, dict[str, Any]] = {
    "consumer": KafkaConsumer.DEFAULT_CONFIG,
    "producer": KafkaProducer.DEFAULT_CONFIG,
    "admin": KafkaAdminClient.DEFAULT_CONFIG,
}

OWNED = {
    "bootstrap_servers": "kafka.bootstrap_servers",
    "group_id": "kafka.group_id",
    "group_instance_id": "kafka.group_instance_id",
    "partition_assignment_strategy": "kafka.assignor",
    "isolation_level": "kafka.isolation",
    "auto_offset_reset": "kafka.start and delivery.on_missing_offsets",
    "enable_auto_commit": "delivery.mode",
    "auto_commit_interval_ms": "delivery.commit_interval_ms",
    "default_offset_commit_callback": "delivery.mode",
    "key_deserializer": "messages.format",
    "value_deserializer": "messages.format",
    "key_serializer": "outputs",
    "value_serializer": "outputs",
    "partitioner": "outputs",
    "acks": "delivery.mode",
    "enable_idempotence": "delivery.mode",
    "retries": "delivery.mode",
    "transactional_id": "delivery.transactional_id",
    "transaction_timeout_ms": "delivery.mode",
    "allow_auto_create_topics": "kafka.topics",
    "consumer_timeout_ms": "the program",
    "client_id": "the program",
}
"""Settings of kafka-python that follow from other keys, and which."""

OBJECTS = {"ssl_context", "selector", "metric_reporters", "kafka_client", "socket_options", "sasl_oauth_token_provider"}
"""Settings whose value is a Python object."""


def client_settings(kafka: schema.Kafka, kind: Kind) -> dict[str, Any]:
    """What `kafka.client` says for one kind of client, secrets read; settings that only another kind knows are left out.

    ConfigError for a setting that no client knows, that another key owns, or whose secret is missing.
    """
    known = sorted({name for names in DEFAULTS.values() for name in names} - OBJECTS - OWNED.keys())
    found = {}
    for name, value in kafka.client.items():
        where = f"kafka.client.{name}"
        if name in OWNED:
            raise ConfigError(f"{where}: is set by {OWNED[name]}; remove it here")
        if name in OBJECTS:
            raise ConfigError(f"{where}: takes a Python object, which a configuration cannot hold; remove it")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the settings are: {', '.join(known)}"
            raise ConfigError(f"{where}: kafka-python has no such setting; {hint}")
        plain = _secret(where, value) if isinstance(value, Mapping) else value
        _check_type(where, plain, next(names[name] for names in DEFAULTS.values() if name in names))
        if name in DEFAULTS[kind]:
            found[name] = plain
    return found


def _secret(where: str, place: Mapping[str, Any]) -> str:
    """The text that {env: NAME} or {file: PATH} stands for, without the line end that editors append."""
    match dict(place):
        case {"env": str(name), **others} if not others:
            if name not in os.environ:
                raise ConfigError(f"{where}: the environment variable {name} is not set; set it")
            return os.environ[name]
        case {"file": str(path), **others} if not others:
            try:
                return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{where}: the file {path} cannot be read ({error}); check path and rights"
                ) from error
    raise ConfigError(
        f"{where}: a secret is written {{env: NAME}} or {{file: PATH}}, got keys {', '.join(map(str, place))}"
    )


def _check_type(where: str, value: Any, default: Any) -> None:
    """Raises where a number or a truth value is due and `value` is something else; the default says which."""
    truth = isinstance(default, bool)
    if truth and not isinstance(value, bool):
        raise ConfigError(f"{where}: must be true or false, got {value!r}")
    if (
        isinstance(default, int | float)
        and not truth
        and (isinstance(value, bool) or not isinstance(value, int | float))
    ):
        raise ConfigError(f"{where}: must be a number, got {value!r}")
