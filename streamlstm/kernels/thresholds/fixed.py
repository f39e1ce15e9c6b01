"""`fixed`: the score that the user states."""

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.layout import LEVEL


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes nothing: a fixed threshold learns nothing."""


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The stated score."""
    return params[LEVEL]
