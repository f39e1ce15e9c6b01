"""Clipping of a gradient, and one update of all parameters by one of four optimisers.

| kind | first | second | step, with g the gradient and r the rate |
|---|---|---|---|
| adam | mean of g | mean of g^2 | r first / (sqrt(second) + 1e-8), both free of the bias of their start |
| adamw | the same | the same | the same, and the decay taken from the parameter itself |
| rmsprop | - | mean of g^2 | r g / (sqrt(second) + 1e-8) |
| sgd | velocity .9 first + g | - | r first |

Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2; Tieleman and Hinton (2012), lecture 6e;
Sutskever and others (2013). Means fade by .9 (first) and .99 (second); but for adamw the decay is part of g.
"""

import numpy as np

from streamlstm.kernels.compiling import jit

ADAM, ADAMW, RMSPROP, SGD = range(4)
OPTIMISERS = {"adam": ADAM, "adamw": ADAMW, "rmsprop": RMSPROP, "sgd": SGD}
_ONE = np.float32(1)
_B1, _B2, _EPSILON = np.float32(0.9), np.float32(0.99), np.float32(1e-8)
_SETTLED = 4000  # updates after which 0.99^n is below 1e-17 and the bias correction is 1


@jit
def clip_gradient(gradient, clip_norm, clip_value):
    """Cuts each value of the gradient at +-clip_value, then scales it to a global norm of at most clip_norm.

    Returns the norm before the scaling; one that is not finite leaves the gradient unscaled.
    """
    total, bound = 0.0, np.float32(clip_value)
    for p in range(gradient.shape[0]):
        if abs(gradient[p]) > bound:
            gradient[p] = bound if gradient[p] > np.float32(0) else -bound
        total += np.float64(gradient[p]) * gradient[p]
    norm = np.sqrt(total)
    if np.isfinite(norm) and norm > clip_norm:
        shrink = np.float32(clip_norm / norm)
        for p in range(gradient.shape[0]):
            gradient[p] *= shrink
    return norm


@jit
def update_parameters(kind, theta, gradient, first, second, decay, update, rate):
    """One update of theta in place, which counts from 1; first, second and decay (each parameter's) float32 like theta."""
    fade_first, fade_second = 1.0, 1.0
    for _ in range(min(update, _SETTLED)):
        fade_first *= 0.9
        fade_second *= 0.99
    pace = np.float32(rate * np.sqrt(1.0 - fade_second) / (1.0 - fade_first))
    r = np.float32(rate)
    for p in range(gradient.shape[0]):
        g = gradient[p]
        if kind == ADAMW:
            theta[p] -= r * decay[p] * theta[p]
        else:
            g += decay[p] * theta[p]
        if kind == SGD:
            first[p] = _B1 * first[p] + g
            theta[p] -= r * first[p]
            continue
        second[p] = _B2 * second[p] + (_ONE - _B2) * g * g
        if kind == RMSPROP:
            theta[p] -= r * g / (np.sqrt(second[p]) + _EPSILON)
        else:
            first[p] = _B1 * first[p] + (_ONE - _B1) * g
            theta[p] -= pace * first[p] / (np.sqrt(second[p]) + _EPSILON)
