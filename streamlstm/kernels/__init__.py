"""All that is compiled. What it is compiled for is settled before any module here imports Numba."""

from streamlstm.kernels import host

host.choose()
