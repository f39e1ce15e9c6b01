"""Configuration: schema, loading, presets."""

from streamlstm.config.schema import Config

__all__ = ["Config"]
