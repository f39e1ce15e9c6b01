"""Weight normalisation: the length of a unit's weights is learned apart from their direction."""

import numpy as np

from streamlstm.kernels.cells import Cell
from streamlstm.model.parameters import weight_matrices
from streamlstm.types import Float32, Float64


class WeightNorm:
    """Recurrent layers in which each row of W_ih and W_hh, a unit's weights of one gate, stands for g v / |v|.

    What is learned is theta, whose matrices hold v, and behind it all g (Salimans and Kingma 2016). Where v is zero, which
    is padding or a gate that does not read, the weights stay zero.
    """

    def __init__(self, cell: Cell, I: int, H: int, Hp: int, L: int) -> None:
        self._sizes = cell, I, H, Hp, L
        self.gains = 2 * L * cell.gates * Hp

    def begun(self, theta: Float32) -> Float32:
        """What stands for the weights theta: v as they are, g their lengths."""
        return np.concatenate([theta, *(_lengths(W).astype(np.float32) for W in self._matrices(theta))])

    def multiplied_out(self, learned: Float32) -> Float32:
        """The weights that are learned parameters stand for."""
        theta = learned[: -self.gains].copy()
        for W, g in zip(self._matrices(theta), self._of_matrices(learned), strict=True):
            W[:] = (W * (g * _inverse(W))).astype(np.float32)
        return theta

    def gradient(self, learned: Float32, of_weights: Float32) -> Float32:
        """Of what is learned, by the gradient of the weights; equations 3 of the paper."""
        out = np.concatenate([of_weights, np.zeros(self.gains, np.float32)])
        for v, g, of_v, of_g in zip(
            self._matrices(learned),
            self._of_matrices(learned),
            self._matrices(out),
            self._of_matrices(out),
            strict=True,
        ):
            inverse = _inverse(v)
            direction = v * inverse
            of_g[:] = (of_v * direction).sum(axis=0)
            of_v[:] = g * inverse * (of_v - of_g * direction)
        return out

    def _matrices(self, theta: Float32) -> list[Float32]:
        """Views (rows, G Hp)."""
        cell, I, H, Hp, L = self._sizes
        return [W.reshape(len(W), -1) for W in weight_matrices(cell, theta, I, H, Hp, L)]

    def _of_matrices(self, learned: Float32) -> Float32:
        """Views of g, (2 L, G Hp)."""
        return learned[-self.gains :].reshape(2 * self._sizes[-1], -1)


def _lengths(W: Float32) -> Float64:
    # Row after row in float64: the same bits on any host, which a matrix library does not promise.
    squares: Float64 = (W.astype(np.float64) ** 2).sum(axis=0)
    return np.sqrt(squares)


def _inverse(W: Float32) -> Float64:
    lengths = _lengths(W)
    out = np.zeros_like(lengths)
    np.divide(1, lengths, out=out, where=lengths > 0)
    return out
