"""Recurrent cells. A new one is one file with its three compiled functions and its `Cell`, and a line below."""

import copyreg

from streamlstm.kernels.cells.cell import Cell, Layer
from streamlstm.kernels.cells.gru import GRU
from streamlstm.kernels.cells.lstm import LSTM
from streamlstm.kernels.cells.peephole import PEEPHOLE_LSTM
from streamlstm.kernels.cells.rnn_relu import RNN_RELU
from streamlstm.kernels.cells.rnn_tanh import RNN_TANH

__all__ = ["CELLS", "Cell", "Layer", "cell_named"]

CELLS: dict[str, Cell] = {cell.name: cell for cell in (LSTM, PEEPHOLE_LSTM, GRU, RNN_TANH, RNN_RELU)}


def cell_named(name: str) -> Cell:
    """The cell of that name; KeyError where there is none."""
    return CELLS[name]


copyreg.pickle(Cell, lambda cell: (cell_named, (cell.name,)))  # machine code stays in its process
