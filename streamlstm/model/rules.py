"""The rules of a configuration as the limits that kernels read."""

from collections.abc import Mapping, Sequence

import numpy as np

from streamlstm.config.schema import Rules
from streamlstm.errors import ConfigError
from streamlstm.kernels.layout import RULE_ALONE, RULE_FLAT, RULE_MISSED, RULE_VALUE
from streamlstm.types import Float64

OFF = (-np.inf, np.inf, np.inf, np.inf, np.inf)
"""Minimum, maximum, largest step, records at one value, records without a value: limits that nothing breaks."""


def rule_limits(rules: Rules, features: Sequence[str]) -> Float64:
    """The limits (RULE_LIMITS, D) of `features`; ConfigError where a rule names another one."""
    limits = np.repeat(np.array(OFF)[:, None], len(features), axis=1)
    for limit, name in zip(limits, ("minimum", "maximum", "max_step", "flat_rows", "missing_rows"), strict=True):
        content = getattr(rules, name)
        for feature, value in (content if isinstance(content, Mapping) else dict.fromkeys(features, content)).items():
            if feature not in features:
                raise ConfigError(
                    f"rules.{name}: there is no feature {feature!r}; the features are: {', '.join(features)}"
                )
            limit[features.index(feature)] = np.inf if value is None else value
    return limits


def rules_needed(rules: Rules) -> int:
    """Bits of `sizes[RULES]`."""
    needed = RULE_FLAT * bool(rules.flat_rows) | RULE_MISSED * bool(rules.missing_rows)
    needed |= RULE_VALUE * bool(rules.flat_rows or rules.max_step)
    return needed | RULE_ALONE * bool(rules.minimum or rules.maximum or rules.silent_s)
