"""A configuration for others: as YAML, as a JSON schema, as a hash."""

import hashlib
import json
import re
from typing import Any

import yaml

from streamlstm.config.schema import Config
from streamlstm.config.secrets import without_secrets

_NO_BIT = {"forecast", "runtime", "kafka", "outputs", "delivery", "service"}
_BREAKS = re.compile("[\x85\u2028\u2029]")


def to_yaml(config: Config, *, secrets: bool = True) -> str:
    """The full configuration as YAML, in the schema's order; `load` reads it back to an equal one.

    Without `secrets` each of them reads `***`.
    """
    content = config.model_dump(mode="json")
    content = content if secrets else without_secrets(content)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    # PyYAML folds Unicode's own line breaks wrongly unless it escapes them, and then it escapes all.
    return yaml.safe_dump(content, sort_keys=False) if _BREAKS.search(text) else text


def json_schema() -> dict[str, Any]:
    """JSON schema of a configuration file, for editors; `extends` is part of files, not of a `Config`."""
    schema = Config.model_json_schema()
    extends = {"type": "string", "description": "Name of a preset, or path of a file, that this one builds on."}
    return {**schema, "properties": {"extends": extends, **schema["properties"]}}


def config_hash(config: Config) -> str:
    """16 hex digits that differ when outputs may differ: of all sections that change a bit of a score or flag."""
    content = config.model_dump(mode="json", exclude=_NO_BIT)
    content["model"].pop("file")  # the model itself has a hash
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
