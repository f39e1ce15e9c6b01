"""Recurrent cells. A new one is one file with its stages, two functions of training and its `Cell`, and a line below."""

import copyreg
from dataclasses import replace

from streamlstm.kernels.cells.cell import Cell, Layer
from streamlstm.kernels.cells.gru import GRU
from streamlstm.kernels.cells.gru_before import GRU_BEFORE
from streamlstm.kernels.cells.lstm import LSTM
from streamlstm.kernels.cells.peephole import PEEPHOLE_LSTM
from streamlstm.kernels.cells.rnn_relu import RNN_RELU
from streamlstm.kernels.cells.rnn_tanh import RNN_TANH

__all__ = ["CELLS", "Cell", "Layer", "cell_named"]

CELLS: dict[str, Cell] = {cell.name: cell for cell in (LSTM, PEEPHOLE_LSTM, GRU, GRU_BEFORE, RNN_TANH, RNN_RELU)}


def cell_named(name: str, layer_norm: bool = False) -> Cell:
    """The cell of that name, with layer normalisation or without; KeyError where there is none."""
    return replace(CELLS[name], layer_norm=layer_norm)


copyreg.pickle(Cell, lambda cell: (cell_named, (cell.name, cell.layer_norm)))  # machine code stays in its process
