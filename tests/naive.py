"""A slow, obvious float64 reference of everything numeric. No Numba, no vector tricks: what the formulas say."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(x, h, c, W_ih, W_hh, bias):
    """One step: x (B, I), h and c (B, H), W_ih (4H, I), W_hh (4H, H), bias (4H), gates i, f, g, o -> h, c."""
    i, f, g, o = np.split(x @ W_ih.T + h @ W_hh.T + bias, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def network_step(x, hs, cs, layers):
    """Stacked layers [(W_ih, W_hh, bias)]; hs and cs are lists of (B, H) that are replaced in place -> h of the top."""
    for k, layer in enumerate(layers):
        hs[k], cs[k] = lstm_step(x, hs[k], cs[k], *layer)
        x = hs[k]
    return x


def window_loss(layers, V, bias, x, target, hs, cs, huber, scale):
    """Huber loss of a window x (T, B, I), target (T, B, D) with NaN for nothing, summed and scaled."""
    loss = 0.0
    hs, cs = list(hs), list(cs)
    for t in range(len(x)):
        y = network_step(x[t], hs, cs, layers) @ V + bias
        for e in (y - target[t])[~np.isnan(target[t])]:
            loss += 0.5 * e * e if abs(e) <= huber else huber * (abs(e) - 0.5 * huber)
    return loss * scale


def ridge(A, Y, penalty):
    """Weights (P, D) of Y on A (N, P), the first column of A constant and not penalised."""
    P = A.shape[1]
    R = penalty * np.eye(P)
    R[0, 0] = 0
    return np.linalg.lstsq(A.T @ A + R, A.T @ Y, rcond=None)[0]


SPANS = (6, 12, 25, 50, 100)


class Regressors:
    """The last three values and five EWMAs of every feature, begun as if the first value had always been there."""

    def __init__(self, z):
        z = np.clip(z, -50, 50)
        self.rows = [np.array(z, float) for _ in range(8)]

    def vector(self):
        """(8 D): lag 1 of all features, lag 2, lag 3, then EWMA by EWMA."""
        return np.concatenate(self.rows)

    def absorb(self, z):
        z = np.clip(z, -50, 50)
        self.rows[:3] = [z.copy(), self.rows[0], self.rows[1]]
        for j, span in enumerate(SPANS):
            self.rows[3 + j] = self.rows[3 + j] + 2 / (span + 1) * (z - self.rows[3 + j])


def exceeded_by(scores, share):
    """The score that a share of the scores exceed."""
    return float(np.quantile(scores, 1 - share))


class Stream:
    """One stream under frozen weights with known mean, spread and usual errors: expected value and score, record by record."""

    def __init__(self, layers, V, V_bias, skip, mean, spread, usual, *, span, scale_span=1000.0, clip=5.0, floor=1e-3):
        self.layers, self.V, self.V_bias, self.skip = layers, V, V_bias, skip
        self.mean, self.spread, self.usual, self.recent = mean, spread, np.maximum(usual, floor), np.array(usual, float)
        self.span, self.scale_span, self.clip = span, scale_span, clip
        self.features = V.shape[1]
        self.hs = [np.zeros((1, W_hh.shape[1])) for _, W_hh, _ in layers]
        self.cs = [h.copy() for h in self.hs]
        self.regressors = None
        self.smooth = None

    def score(self, x):
        """x (D + K) with NaN for missing -> (expected (D), score)."""
        D = self.features
        z = np.clip((x - self.mean) / self.spread, -1e9, 1e9)
        if self.regressors is None:
            self.regressors = Regressors(np.nan_to_num(z[:D]))
        known = np.clip(np.nan_to_num(z[D:]), -self.clip, self.clip)
        lag = np.clip(self.regressors.rows[0], -self.clip, self.clip)
        h = network_step(np.concatenate([lag, known])[None], self.hs, self.cs, self.layers)[0]
        inputs = np.concatenate([[1.0], self.regressors.vector(), known])
        predicted = np.clip(h @ self.V + self.V_bias + inputs @ self.skip, -50, 50)
        missing = np.isnan(z[:D])
        error = np.where(missing, 0.0, np.nan_to_num(z[:D]) - predicted)
        u = np.abs(error) / np.sqrt(self.usual * np.maximum(self.recent, self.usual))
        if not missing.all():
            rms = min(math.sqrt((u[~missing] ** 2).mean()), 256.0)
            self.smooth = rms if self.smooth is None else self.smooth + 2 / (self.span + 1) * (rms - self.smooth)
        reach = 100 * np.maximum(self.usual, self.recent)
        size = np.minimum(np.abs(error), reach)
        self.recent = np.where(missing, self.recent, self.recent + 2 / (self.scale_span + 1) * (size - self.recent))
        self.regressors.absorb(
            np.where(missing, predicted, np.clip(np.nan_to_num(z[:D]), predicted - reach, predicted + reach))
        )
        return self.mean[:D] + self.spread[:D] * predicted, self.smooth or 0.0


def pareto_likelihood(y, sigma, gamma):
    """Mean log-likelihood of excesses y under generalised Pareto distributions, sigma and gamma broadcast (gamma != 0)."""
    y, sigma, gamma = np.asarray(y)[:, None, None], np.asarray(sigma), np.asarray(gamma)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = 1 + gamma * y / sigma
        found = (-np.log(sigma) - (1 + 1 / gamma) * np.log(inside)).mean(axis=0)
    return np.where((inside > 0).all(axis=0), found, -np.inf)


def runs(at, near):
    """Places `at`, sorted, as lists in which neighbours are no more than `near` apart."""
    found = []
    for k in at:
        if found and k - found[-1][-1] <= near:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def dynamic_threshold(e, near, rows):
    """telemanom's eps of errors e; each stands for `rows` of them."""
    mean, sd = e.mean(), e.std()
    best, eps = -math.inf, mean + 12 * sd
    for z in np.arange(2.5, 12, 0.5):
        candidate = mean + z * sd
        above, below = np.flatnonzero(e > candidate), e[e <= candidate]
        sequences = runs(above, near)
        if not len(above) or len(sequences) > 5 or len(above) >= 0.5 * len(e):
            continue
        worth = ((mean - below.mean()) / mean + (sd - below.std()) / sd) / (len(sequences) ** 2 + len(above) * rows)
        if worth >= best:
            best, eps = worth, candidate
    return eps


def stands_out(e, new, near, rows, step=0.13):
    """Is `new` an anomaly after errors e: above their eps, and kept when sequences are pruned?"""
    eps = dynamic_threshold(e, near, rows)
    if new <= eps:
        return False
    peaks = sorted([new, *(max(e[k] for k in run) for run in runs(np.flatnonzero(e > eps), near))], reverse=True)
    levels = [*peaks, e[e <= eps].max()]
    large = [n for n in range(len(peaks)) if (levels[n] - levels[n + 1]) / levels[n] > step]
    return bool(large) and peaks.index(new) <= large[-1]
