"""The only room that imports kafka-python: clients from the configuration, whole record batches, errors in words.

`settings` turns the section `kafka` into a client's settings, `clients` makes the clients, `batches` is the hook behind
the consumer's fetcher and `selftest` tries it, `reading` lets it read more at once, `failures` says what went wrong, and
`quiet` keeps the client's log short.
"""

import warnings

with warnings.catch_warnings():
    # kafka-python 3.0.12 reads its protocol with functions that Python 3.11 calls deprecated.
    warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
    from kafka import ConsumerRebalanceListener, TopicPartition
    from kafka.admin import ConfigResource
    from kafka.consumer.fetcher import ConsumerRecord
    from kafka.errors import (
        CommitFailedError,
        FencedInstanceIdError,
        KafkaError,
        KafkaTimeoutError,
        LogTruncationError,
        NoOffsetForPartitionError,
        OffsetOutOfRangeError,
        ProducerFencedError,
        RebalanceInProgressError,
        RetriableError,
        TopicAlreadyExistsError,
        UnsupportedCodecError,
    )
    from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from streamlstm.kafka_client.batches import BadBatch, Batch, CorruptBatchError
from streamlstm.kafka_client.blocks import frame, from_records
from streamlstm.kafka_client.clients import make_admin, make_consumer, make_producer
from streamlstm.kafka_client.failures import BrokerError, explain, require_topics
from streamlstm.kafka_client.quiet import quieten
from streamlstm.kafka_client.reading import read_widely
from streamlstm.kafka_client.selftest import take_batches

__all__ = [
    "BadBatch",
    "Batch",
    "BrokerError",
    "CommitFailedError",
    "ConfigResource",
    "ConsumerGroupMetadata",
    "ConsumerRebalanceListener",
    "ConsumerRecord",
    "CorruptBatchError",
    "FencedInstanceIdError",
    "KafkaError",
    "KafkaTimeoutError",
    "LogTruncationError",
    "NoOffsetForPartitionError",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "ProducerFencedError",
    "RebalanceInProgressError",
    "RetriableError",
    "TopicAlreadyExistsError",
    "TopicPartition",
    "UnsupportedCodecError",
    "explain",
    "frame",
    "from_records",
    "make_admin",
    "make_consumer",
    "make_producer",
    "quieten",
    "read_widely",
    "require_topics",
    "take_batches",
]
