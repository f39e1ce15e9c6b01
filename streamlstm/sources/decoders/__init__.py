"""From the bytes of Kafka records to columns: one file per format, each a `protocol.Decoder`."""
