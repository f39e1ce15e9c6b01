"""The LSTM's parameters as training holds them (flat, padded, see `kernels.bptt`), from and to a network."""

import numpy as np

from streamlstm.model.network import Network
from streamlstm.types import Float32, Float64


def initial_theta(I: int, H: int, Hp: int, L: int, O: int, seed: int) -> Float32:
    """Untrained parameters in the order of `kernels.bptt`: uniform within 1 / sqrt(H), forget bias 1, readout zero.

    With a readout of zero the linear skip alone predicts, until the LSTM has learned something that it leaves over.
    """
    rng = np.random.default_rng(seed)
    parts, inputs, padded_inputs = [], I, I
    for _ in range(L):
        W = np.zeros((padded_inputs + Hp, 4, Hp), np.float32)
        bound = 1 / H**0.5
        W[:inputs, :, :H] = rng.uniform(-bound, bound, (inputs, 4, H))
        W[padded_inputs : padded_inputs + H, :, :H] = rng.uniform(-bound, bound, (H, 4, H))
        bias = np.zeros((4, Hp), np.float32)
        bias[1, :H] = 1.0
        parts += [W.reshape(-1), bias.reshape(-1)]
        inputs, padded_inputs = H, Hp
    return np.concatenate([*parts, np.zeros((Hp + 1) * O, np.float32)])


def network_theta(network: Network, I: int, Hp: int, L: int, O: int) -> Float32:
    """The parameters of a network in the order of `kernels.bptt`, padded."""
    parts, padded_inputs, H = [], I, network.hidden_size
    for W_ih, W_hh, bias in network.layers:
        W = np.zeros((padded_inputs + Hp, 4, Hp), np.float32)
        inputs = W_ih.shape[1]
        W[:inputs, :, :H] = W_ih.reshape(4, H, inputs).transpose(2, 0, 1)
        W[padded_inputs : padded_inputs + H, :, :H] = W_hh.reshape(4, H, H).transpose(2, 0, 1)
        padded_bias = np.zeros((4, Hp), np.float32)
        padded_bias[:, :H] = bias.reshape(4, H)
        parts += [W.reshape(-1), padded_bias.reshape(-1)]
        padded_inputs = Hp
    readout = np.zeros((Hp + 1, O), np.float32)
    readout[:H, : len(network.readout)] = network.readout.T
    readout[Hp, : len(network.readout)] = network.readout_bias
    return np.concatenate([*parts, readout.reshape(-1)])


def theta_network(theta: Float32, scale: Float32, skip: Float64, I: int, H: int, Hp: int, L: int, O: int) -> Network:
    """The network of trained parameters and skip (3, P, D): padding cut off, `scale` (3 D) folded into the readout."""
    layers, inputs, padded_inputs, at, outputs = [], I, I, 0, len(scale)
    for _ in range(L):
        W = theta[at : at + (padded_inputs + Hp) * 4 * Hp].reshape(padded_inputs + Hp, 4, Hp)
        at += W.size
        bias = theta[at : at + 4 * Hp].reshape(4, Hp)[:, :H]
        at += 4 * Hp
        W_ih = W[:inputs, :, :H].transpose(1, 2, 0).reshape(4 * H, inputs)
        W_hh = W[padded_inputs : padded_inputs + H, :, :H].transpose(1, 2, 0).reshape(4 * H, H)
        layers.append((W_ih.copy(), W_hh.copy(), bias.reshape(-1).copy()))
        inputs, padded_inputs = H, Hp
    readout = theta[at:].reshape(Hp + 1, O)
    return Network(
        tuple(layers),
        np.ascontiguousarray((readout[:H, :outputs] * scale).T),
        readout[Hp, :outputs] * scale,
        np.ascontiguousarray(skip.transpose(0, 2, 1).astype(np.float32)),
    )
