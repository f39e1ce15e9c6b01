"""The part of a model that forecasts: a readout of the same network and a linear skip, for each of N horizons."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from streamlstm.types import Float32

GAUSSIAN_OUTPUTS = 2
"""Outputs for each horizon and feature where mean and scale are forecast; else one for each quantile."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is read out of the top layer's h and the raw regressors for records 1 to N ahead, float32.

    weight (Q, N, D, H) and bias (Q, N, D): of mean and log-scale, or of each quantile, in units of `scale`; skip (N, D, P):
    what they are relative to; scale (N, D): root mean square of what the skip leaves over. Values of skip and scale are
    standard deviations of the normalised inputs.
    """

    weight: Float32
    bias: Float32
    skip: Float32
    scale: Float32

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Self:
        """What `tensors` gave."""
        return cls(*(tensors[f"forecast.{field.name}"] for field in fields(cls)))

    def tensors(self) -> dict[str, Float32]:
        """All arrays by the names they have in a model file."""
        return {f"forecast.{field.name}": getattr(self, field.name) for field in fields(self)}

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each array, in the order of the fields."""
        return self.weight.shape, self.bias.shape, self.skip.shape, self.scale.shape
