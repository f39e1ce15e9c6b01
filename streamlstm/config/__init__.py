"""Configuration: schema, loading, presets."""

from streamlstm.config.export import config_hash, json_schema, to_yaml
from streamlstm.config.layers import parse_setting
from streamlstm.config.loading import load, model_file
from streamlstm.config.presets import presets
from streamlstm.config.schema import Config

__all__ = ["Config", "config_hash", "json_schema", "load", "model_file", "parse_setting", "presets", "to_yaml"]
