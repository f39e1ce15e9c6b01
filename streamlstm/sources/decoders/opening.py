"""The decoder that a configuration asks for."""

from streamlstm.config import Config
from streamlstm.config.schema import Messages
from streamlstm.errors import ConfigError
from streamlstm.sources.decoders.arrays import ArrayDecoder
from streamlstm.sources.decoders.avro import AvroDecoder
from streamlstm.sources.decoders.delimited import DelimitedDecoder
from streamlstm.sources.decoders.json import JsonDecoder
from streamlstm.sources.decoders.packed import PackedDecoder
from streamlstm.sources.decoders.plugin import PluginDecoder
from streamlstm.sources.decoders.protocol import Decoder


def open_decoder(config: Config, features: tuple[str, ...], exogenous: tuple[str, ...]) -> Decoder:
    """The decoder of `messages.format` for these columns; ConfigError where the configuration does not suffice for it."""
    if not features:
        raise ConfigError(
            "config: input.features: name the columns to predict; unlike those of files, they are not found from messages"
        )
    settings = config.input.model_copy(update={"features": features, "exogenous": exogenous})
    messages = config.messages
    match messages.format:
        case "json":
            return JsonDecoder(settings)
        case "array":
            return ArrayDecoder(settings, _columns(messages))
        case "csv":
            return DelimitedDecoder(settings, _columns(messages), messages.separator)
        case "float32":
            return PackedDecoder(settings, messages.columns, 4)
        case "float64":
            return PackedDecoder(settings, messages.columns, 8)
        case "avro":
            return AvroDecoder(
                settings, _named(messages.schema_file, "schema_file", "avro", "the file of a schema (.avsc)")
            )
        case "python":
            return PluginDecoder(settings, _named(messages.decoder, "decoder", "python", "package.module:function"))


def _columns(messages: Messages) -> tuple[str, ...]:
    if not messages.columns:
        raise ConfigError(
            f"config: messages.columns: format {messages.format} has no names in it; "
            "list what stands at each place, for example [time, sensor, temperature]"
        )
    return messages.columns


def _named(value: str | None, key: str, form: str, what: str) -> str:
    if not value:
        raise ConfigError(f"config: messages.{key}: format {form} needs {what}")
    return value
