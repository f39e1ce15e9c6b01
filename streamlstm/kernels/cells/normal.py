"""Layer normalisation (Ba and others 2016, eq. 4) in training: the sums of a gate to mean 0 and variance 1 over its units.

Arrays are flat float32: gates and hat (B, G Hp), scale (B, G); gains (G Hp) and bias (G Hp) stand per gate. `cell` says by
its `Kernels` which gates read h and are normalised; the others get their bias alone.
"""

import numpy as np

from streamlstm.kernels.cells.program import VARIANCE_FLOOR
from streamlstm.kernels.compiling import jit

_F0, _F1, _FLOOR = np.float32(0), np.float32(1), np.float32(VARIANCE_FLOOR)


@jit
def normalise(cell, gates, hat, scale, first, end, bias, gains, B, Hp):
    """Brings gates first .. end of B rows from sums without bias to what the cell reads; keeps what `take_back` needs."""
    G, H = cell.gates, cell.normal
    for b in range(B):
        for gate in range(first, end):
            at = (b * G + gate) * Hp
            sums, kept = gates[at : at + Hp], hat[at : at + Hp]
            shift, gain = bias[gate * Hp : (gate + 1) * Hp], gains[gate * Hp : (gate + 1) * Hp]
            if cell.reading_h >> gate & 1 == 0:
                for u in range(Hp):
                    sums[u] += shift[u]
                continue
            mean, variance = _F0, _F0
            for u in range(H):
                mean += sums[u]
            mean /= np.float32(H)
            for u in range(H):
                variance += (sums[u] - mean) * (sums[u] - mean)
            factor = _F1 / np.sqrt(variance / np.float32(H) + _FLOOR)
            scale[b * G + gate] = factor
            for u in range(H):
                kept[u] = (sums[u] - mean) * factor
            for u in range(H):
                sums[u] = kept[u] * gain[u] + shift[u]


@jit
def take_back(cell, gates, hat, scale, first, end, gains, B, Hp, out_bias, out_gains):
    """Brings gradients of what the cell read back to those of the sums; adds those of biases and gains."""
    G, H = cell.gates, cell.normal
    for b in range(B):
        for gate in range(first, end):
            at = (b * G + gate) * Hp
            d, kept = gates[at : at + Hp], hat[at : at + Hp]
            columns = slice(gate * Hp, (gate + 1) * Hp)
            gain, d_bias, d_gain = gains[columns], out_bias[columns], out_gains[columns]
            for u in range(H):
                d_bias[u] += d[u]
            if cell.reading_h >> gate & 1 == 0:
                continue
            mean, along = _F0, _F0
            for u in range(H):
                d_gain[u] += d[u] * kept[u]
            for u in range(H):
                d[u] *= gain[u]
            for u in range(H):
                mean += d[u]
                along += d[u] * kept[u]
            mean /= np.float32(H)
            along /= np.float32(H)
            for u in range(H):
                d[u] = scale[b * G + gate] * (d[u] - mean - along * kept[u])
