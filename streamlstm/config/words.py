"""The schema's rules in plain words: `must be between 4 and 512, got 600`."""

import reprlib
from functools import cache
from math import isfinite
from typing import Any

from streamlstm.config.schema import Config

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list of names",
    "object": "a mapping",
}
_RANGE_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


@cache
def sections() -> dict[str, dict[str, dict[str, Any]]]:
    """The JSON schema of every key, by section and key, in the schema's order."""
    definitions = Config.model_json_schema()["$defs"]
    return {
        name: dict(definitions[field.annotation.__name__]["properties"])
        for name, field in Config.model_fields.items()
        if field.annotation is not None
    }


def show(value: Any) -> str:
    """The value as YAML would write it, cut when long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _SHORT.repr(value)


def complaint(section: str, key: str, value: Any, kinds: list[str]) -> str:
    """What is wrong with `value`; `kinds` are pydantic's error types for it."""
    rule = sections()[section][key]
    bare = all(kind in _RANGE_ERRORS for kind in kinds) and not isinstance(value, str | bool)
    comma = ";" if "enum" in rule else ","
    return f"must be {_rule(rule, bare=bare)}{comma} got {show(value)}{_remedy(rule, value)}"


def item_complaint(section: str, key: str, value: Any) -> str:
    """What is wrong with one item of a list of names, of choices or of numbers."""
    items = sections()[section][key].get("items", {})
    rule = items if "enum" in items or items.get("type") == "number" else {"type": "string"}
    return f"must be {_rule(rule, bare=False)}{';' if 'enum' in rule else ','} got {show(value)}{_remedy(rule, value)}"


def _rule(rule: dict[str, Any], *, bare: bool) -> str:
    """The rule of one key; `bare` leaves the type out where the value has the right one."""
    if "anyOf" in rule:
        return " or ".join(_rule(choice, bare=bare) for choice in rule["anyOf"])
    if "enum" in rule:
        return "one of: " + ", ".join(map(str, rule["enum"]))
    if "const" in rule:
        return str(rule["const"])
    if rule["type"] == "null":
        return "null"
    if isinstance(rule.get("additionalProperties"), dict):
        return f"a mapping of names, each to {_rule(rule['additionalProperties'], bare=False)}"
    if "minLength" in rule:
        return "one character" if rule.get("maxLength") == 1 else "text that is not empty"
    if rule.get("items", {}).get("type") == "number":
        return f"a list of numbers, each {_bounds(rule['items'])}"
    bounds = _bounds(rule)
    return bounds if bounds and bare else f"{_TYPES[rule['type']]} {bounds}".strip()


def _bounds(rule: dict[str, Any]) -> str:
    low, high = rule.get("minimum"), rule.get("maximum")
    if low is not None and high is not None:
        return f"between {low} and {high}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return " and ".join(f"{word} {rule[name]}" for name, word in words.items() if name in rule)


def _remedy(rule: dict[str, Any], value: Any) -> str:
    if isinstance(value, float) and not isfinite(value):
        return "; infinity and NaN are no values here"
    kinds = {choice.get("type") for choice in rule.get("anyOf", [rule])}
    if "string" in kinds and "enum" not in rule and "integer" not in kinds:
        return "; put it in quotes" if not isinstance(value, str | list | dict | tuple) else ""
    if "array" in kinds and isinstance(value, str):
        return f"; write [{value}]"
    return ""
