"""What went wrong between us and the broker, in words: the key, its value, the reason, the remedy."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from kafka import errors

from streamlstm.config import schema
from streamlstm.errors import ConfigError, StreamlstmError

BOOTSTRAP_MS = 10_000
"""How long a client looks for a broker when it is made."""
LOGIN = (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError)


class BrokerError(StreamlstmError):
    """A broker that does not answer, refuses us, or answers what we cannot use."""


class SilenceError(errors.KafkaError):  # type: ignore[misc]
    """No bootstrap server answered; `cause` is the last reason that the client met, None if it met none."""

    def __init__(self, cause: BaseException | None, timeout_ms: float) -> None:
        super().__init__(cause)
        self.cause, self.timeout_ms = cause, timeout_ms


def explain(error: BaseException, kafka: schema.Kafka) -> StreamlstmError:
    """`error` as one that a user can act on; `kafka` is the section that the client was made from."""
    servers = ", ".join(kafka.bootstrap_servers)
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case StreamlstmError():
            return error
        case SilenceError():
            return _silence(error, kafka, servers)
        case errors.KafkaConfigurationError() | errors.InvalidSessionTimeoutError():
            return ConfigError(f"kafka.client: {text}")
        case _ if isinstance(error, LOGIN):
            return _login(error, kafka, servers)
        case errors.TopicAuthorizationFailedError():
            topics = _names(error) or ", ".join(kafka.topics)
            return BrokerError(f"kafka: no permission for topic {topics}; ask for the rights to read and describe it")
        case errors.GroupAuthorizationFailedError():
            return BrokerError(
                f"kafka.group_id: no permission for group {kafka.group_id!r}; ask for the right to read it"
            )
        case errors.TransactionalIdAuthorizationFailedError():
            return BrokerError(
                "delivery.transactional_id: no permission for it; ask for the rights to write and describe it"
            )
        case errors.AuthorizationError():
            return BrokerError(f"kafka: the broker at {servers} denies permission ({text}); ask for the rights")
        case errors.FencedInstanceIdError():
            return BrokerError(
                f"kafka.group_instance_id: {kafka.group_instance_id!r} is in use by another process of group "
                f"{kafka.group_id!r}; give each process an id of its own"
            )
        case errors.InconsistentGroupProtocolError():
            return BrokerError(
                f"kafka.assignor: the members of group {kafka.group_id!r} do not share {kafka.assignor!r}; "
                f"use one assignor, or another kafka.group_id"
            )
        case errors.UnsupportedCodecError():
            return BrokerError(
                f"kafka: a compression is missing here ({text}); pip install 'kafka-python[snappy,lz4,zstd]'"
            )
        case errors.KafkaTimeoutError() | errors.KafkaConnectionError() | errors.NodeNotReadyError():
            return BrokerError(f"kafka: no answer from the broker at {servers} in time ({text}); check that it runs")
    return BrokerError(f"kafka: {type(error).__name__}: {text}")


def require_topics(consumer: Any, topics: Iterable[str], kafka: schema.Kafka) -> dict[str, tuple[int, ...]]:
    """The partition numbers of each topic, ascending; BrokerError naming one that the broker does not have."""
    found = {}
    for topic in topics:
        try:
            found[topic] = tuple(sorted(consumer.partitions_for_topic(topic)))
            existing = () if found[topic] else sorted(consumer.topics())
        except errors.KafkaError as error:
            raise explain(error, kafka) from error
        if not found[topic]:
            near = get_close_matches(topic, existing, n=3) or existing[:3]
            there = f"the nearest are {', '.join(near)}" if near else "it has none that may be seen"
            raise BrokerError(
                f"kafka.topics: the broker at {', '.join(kafka.bootstrap_servers)} has no topic {topic!r}; "
                f"{there}; create it or correct the name"
            )
    return found


def _silence(error: SilenceError, kafka: schema.Kafka, servers: str) -> StreamlstmError:
    cause, text = error.cause, " ".join(str(error.cause).split())
    if isinstance(cause, LOGIN):
        return _login(cause, kafka, servers)
    if "Handshake failed" in text or "SSL" in text:
        return BrokerError(
            f"kafka.client: TLS with {servers} failed: {_plain(text)}; "
            f"check security_protocol, ssl_cafile and the certificate's name"
        )
    reason = f": {_plain(text)}" if cause is not None else ""
    return BrokerError(
        f"kafka.bootstrap_servers: nobody answers at {servers} (tried for {error.timeout_ms / 1000:g} s){reason}; "
        f"check address, port and security_protocol, and that the broker runs"
    )


def _plain(text: str) -> str:
    """`connection refused` for kafka-python's `KafkaConnectionError: 111 ECONNREFUSED`."""
    found = re.fullmatch(r"KafkaConnectionError: (\d+) E\w+", text)
    return os.strerror(int(found[1])).lower() if found else text.removeprefix("KafkaConnectionError: ")


def _login(error: BaseException, kafka: schema.Kafka, servers: str) -> BrokerError:
    mechanism, user = (kafka.client.get(name) for name in ("sasl_mechanism", "sasl_plain_username"))
    return BrokerError(
        f"kafka.client.sasl_mechanism: {servers} refuses the login of {user!r} by {mechanism!r} "
        f"({' '.join(str(error).split())}); check mechanism, user and password"
    )


def _names(error: BaseException) -> str:
    """Topic names that kafka-python put into an error's first argument."""
    first = error.args[0] if error.args else ()
    return ", ".join(sorted(map(str, first))) if isinstance(first, set | frozenset | list | tuple) else ""
