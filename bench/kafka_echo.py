"""A process that copies a topic with kafka-python and does nothing else: `python -m bench.kafka_echo BROKER FROM TO`."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition


def main(bootstrap: str, source: str, target: str) -> None:
    """Copies until it is killed; says `ready` once it is connected."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    partition = TopicPartition(source, 0)
    consumer.assign([partition])
    consumer.position(partition)
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=0)
    producer.partitions_for(target)
    print("ready", flush=True)
    while True:
        for records in consumer.poll(1000).values():
            for record in records:
                producer.send(target, record.value, key=record.key)


if __name__ == "__main__":
    main(*sys.argv[1:])
