"""The recurrent layers' parameters as training holds them (flat, padded, see `kernels.bptt`), from and to a network."""

from collections.abc import Iterator

import numpy as np

from streamlstm.kernels.bptt import theta_size
from streamlstm.kernels.cells import Cell, Layer
from streamlstm.model.network import Network
from streamlstm.types import Float32, Float64


def initial_theta(
    cell: Cell, I: int, H: int, Hp: int, L: int, O: int, seed: int, *, orthogonal: bool = False
) -> Float32:
    """Untrained parameters: uniform within 1 / sqrt(H), a forget gate's bias and gains 1, further vectors and readout zero.

    With a readout of zero the linear skip alone predicts, until the network has learned something that it leaves over.
    With `orthogonal` the recurrent weights of each gate are an orthogonal matrix (Saxe and others 2014), drawn uniformly.
    """
    rng = np.random.default_rng(seed)
    theta = np.zeros(theta_size(cell, I, Hp, L, O), np.float32)
    bound = 1 / H**0.5
    for inputs, W_ih, W_hh, bias, vectors in _views(cell, theta, I, H, Hp, L):
        vectors[cell.own_vectors :, :H] = 1
        for W, gates in ((W_ih, cell.input_gates), (W_hh, cell.recurrent_gates)):
            drawn = rng.uniform(-bound, bound, (inputs if W is W_ih else H, len(gates), H))
            W[:, list(gates), :H] = drawn
        if orthogonal:
            for gate in cell.recurrent_gates:
                Q, R = np.linalg.qr(rng.standard_normal((H, H)))
                W_hh[:, gate, :H] = Q * np.sign(np.diag(R))  # else not uniform: Mezzadri 2007
        if cell.forget_gate is not None:
            bias[cell.forget_gate, :H] = 1.0
    return theta


def matrices(cell: Cell, I: int, H: int, Hp: int, L: int, O: int) -> Float32:
    """1 for every parameter that is an entry of a matrix, 0 for biases and further vectors; what is padded may be either."""
    mask = np.zeros(theta_size(cell, I, Hp, L, O), np.float32)
    for W in weight_matrices(cell, mask, I, H, Hp, L):
        W[:] = 1
    mask[-(Hp + 1) * O : -O] = 1
    return mask


def weight_matrices(cell: Cell, theta: Float32, I: int, H: int, Hp: int, L: int) -> Iterator[Float32]:
    """Views of W_ih (inputs, G, Hp) and W_hh (H, G, Hp), layer by layer, without padded rows."""
    for _, W_ih, W_hh, _, _ in _views(cell, theta, I, H, Hp, L):
        yield W_ih
        yield W_hh


def fold_inputs(cell: Cell, theta: Float32, mean: Float64, factor: Float64, I: int, H: int, Hp: int, L: int) -> Float32:
    """Parameters that make of inputs x (I) what theta makes of (x - mean) factor; not with layer normalisation, whose sums
    have no bias."""
    out = theta.copy()
    _, W_ih, _, bias, _ = next(_views(cell, out, I, H, Hp, L))
    scaled = W_ih * factor[:, None, None]
    W_ih[:] = scaled
    bias -= (scaled * mean[:, None, None]).sum(axis=0).astype(np.float32)
    return out


def network_theta(network: Network, Hp: int, O: int) -> Float32:
    """The parameters of a network, padded."""
    cell, I, H = network.cell, network.layers[0].W_ih.shape[1], network.hidden_size
    L, G = len(network.layers), cell.gates
    theta = np.zeros(theta_size(cell, I, Hp, L, O), np.float32)
    views = _views(cell, theta, I, H, Hp, L)
    for layer, (inputs, W_ih, W_hh, bias, vectors) in zip(network.layers, views, strict=True):
        W_ih[:, :, :H] = layer.W_ih.reshape(G, H, inputs).transpose(2, 0, 1)
        W_hh[:, :, :H] = layer.W_hh.reshape(G, H, H).transpose(2, 0, 1)
        bias[:, :H] = layer.bias.reshape(G, H)
        vectors[:, :H] = layer.vectors.reshape(cell.vectors, H)
    readout = theta[-(Hp + 1) * O :].reshape(Hp + 1, O)
    readout[:H, : len(network.readout)] = network.readout.T
    readout[Hp, : len(network.readout)] = network.readout_bias
    return theta


def theta_network(
    cell: Cell, theta: Float32, scale: Float32, skip: Float64, I: int, H: int, Hp: int, L: int, O: int
) -> Network:
    """The network of trained parameters and skip (3, P, D): padding cut off, `scale` (3 D) folded into the readout."""
    layers = []
    for inputs, W_ih, W_hh, bias, vectors in _views(cell, theta, I, H, Hp, L):
        rows = cell.gates * H
        layers.append(
            Layer(
                W_ih[:, :, :H].transpose(1, 2, 0).reshape(rows, inputs).copy(),
                W_hh[:, :, :H].transpose(1, 2, 0).reshape(rows, H).copy(),
                bias[:, :H].reshape(-1).copy(),
                vectors[:, :H].reshape(-1).copy(),
            )
        )
    outputs = len(scale)
    readout = theta[-(Hp + 1) * O :].reshape(Hp + 1, O)
    return Network(
        cell,
        tuple(layers),
        np.ascontiguousarray((readout[:H, :outputs] * scale).T),
        readout[Hp, :outputs] * scale,
        np.ascontiguousarray(skip.transpose(0, 2, 1).astype(np.float32)),
    )


def _views(
    cell: Cell, theta: Float32, I: int, H: int, Hp: int, L: int
) -> Iterator[tuple[int, Float32, Float32, Float32, Float32]]:
    """Of each layer the number of its inputs, and views without padded rows: W_ih (inputs, G, Hp), W_hh (H, G, Hp), bias
    (G, Hp), vectors (V, Hp)."""
    inputs, wide, at, G = I, I, 0, cell.gates
    for _ in range(L):
        W = theta[at : at + (wide + Hp) * G * Hp].reshape(wide + Hp, G, Hp)
        at += W.size
        bias = theta[at : at + G * Hp].reshape(G, Hp)
        at += bias.size
        vectors = theta[at : at + cell.vectors * Hp].reshape(cell.vectors, Hp)
        at += vectors.size
        yield inputs, W[:inputs], W[wide : wide + H], bias, vectors
        inputs, wide = H, Hp
