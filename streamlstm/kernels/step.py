"""The bare step of one layer, for many streams or along one sequence: for programs that want the cell and nothing else."""

import numpy as np

from streamlstm.kernels.calls import call_step
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.layout import TILE

_ZERO, _ONE = np.int64(0), np.int64(1)


@jit
def step_batch(step, weights, H, x, slots, state, scratch):
    """One step of B streams in one call; writes the new h and c of `slots` in `state`.

    step, address of the cell's step; weights (flat) float32, one layer as `Cell.pack` lays it out; H, its hidden units; x
    (B, I) float32; slots int32 (B); state (S, 2 Hp) float32, a stream's h, then its c, H rounded up to Hp, a multiple of
    16; scratch float32, TILE * (I + H + `Cell.room`). No two of `slots` may be equal: a tile's rows read the old h before
    any of them writes.
    """
    B, I = x.shape
    ldz = max(I + H, scratch.shape[0] // TILE)  # never negative, as LLVM has to know: else it copies float by float
    Hp = np.int64((H + LANES - 1) // LANES * LANES)
    for first in range(0, B, TILE):
        count = min(TILE, B - first)
        for r in range(count):
            row, at = state[slots[first + r]], r * ldz
            for k in range(I):
                scratch[at + k] = x[first + r, k]
            for k in range(H):
                scratch[at + I + k] = row[k]
        call_step(step, weights, _ZERO, I, H, scratch, _ZERO, ldz, slots, first, count, state, _ZERO, state.shape[1],
                  _ZERO, Hp)  # fmt: skip


@jit
def step_sequence(step, weights, H, x, slots, state, scratch, out_h):
    """Steps one stream through a sequence in one call: x (T, I) float32; writes h after each step in out_h (T, H).

    slots int32 (1) is the stream; the other arguments are those of `step_batch`.
    """
    T, I = x.shape
    ldz = max(I + H, scratch.shape[0] // TILE)
    Hp = np.int64((H + LANES - 1) // LANES * LANES)
    row = state[slots[0]]
    for t in range(T):
        for k in range(I):
            scratch[k] = x[t, k]
        for k in range(H):
            scratch[I + k] = row[k]
        call_step(step, weights, _ZERO, I, H, scratch, _ZERO, ldz, slots, _ZERO, _ONE, state, _ZERO, state.shape[1],
                  _ZERO, Hp)  # fmt: skip
        for k in range(H):
            out_h[t, k] = row[k]
