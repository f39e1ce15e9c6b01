"""A slow, obvious float64 reference of everything numeric. No Numba, no vector tricks: what the formulas say."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardised(s, gains):
    """Sums (B, G, H) with mean 0 and variance 1 over the units, times gains (G, H)."""
    s = s - s.mean(axis=2, keepdims=True)
    return s / np.sqrt((s * s).mean(axis=2, keepdims=True) + 1e-5) * gains


def lstm_step(sums, c):
    """Sums (B, 4, H) of gates i, f, g, o and the old cell (B, H) -> h, c."""
    i, f, g, o = sums.transpose(1, 0, 2)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def peephole_step(sums, c, peepholes):
    """The same, with peepholes (3 H) of i and f from the old cell, of o from the new one."""
    i, f, g, o = sums.transpose(1, 0, 2)
    of_i, of_f, of_o = np.split(peepholes, 3)
    new = sigmoid(f + of_f * c) * c + sigmoid(i + of_i * c) * np.tanh(g)
    return sigmoid(o + of_o * new) * np.tanh(new), new


def cell_step(cell, x, h, c, layer, keep=1.0):
    """One step of any cell; `layer` are its weights by PyTorch's names, which see h times `keep` -> h, c.

    x (B, I), h and c (B, H), weight_ih (G H, I), weight_hh (G H, H). With weight_ln what h enters is standardised; there
    the GRU's n, whose parts of x and h are sums of their own, is so in the latter part alone.
    """
    H, seen = h.shape[1], h * keep
    W_ih, W_hh, b_ih, b_hh = (layer[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    of_x = (x @ W_ih.T).reshape(len(x), -1, H)
    gains = layer["weight_ln"].reshape(-1, H) if "weight_ln" in layer else None
    b_ih, b_hh = b_ih.reshape(-1, H), b_hh.reshape(-1, H)

    def joint(s, gates=slice(None)):
        """What the cell makes of sums without bias."""
        if gains is not None:
            s = standardised(s, gains[gates])
        return s + b_ih[gates] + b_hh[gates]

    if cell == "gru_before":
        r, z = joint(of_x[:, :2] + (seen @ W_hh[: 2 * H].T).reshape(len(x), 2, H), slice(2)).transpose(1, 0, 2)
        n = joint(of_x[:, 2:] + ((sigmoid(r) * seen) @ W_hh[2 * H :].T)[:, None], slice(2, 3))[:, 0]
        return (1 - sigmoid(z)) * np.tanh(n) + sigmoid(z) * h, c
    of_h = (seen @ W_hh.T).reshape(len(x), -1, H)
    if cell == "gru":
        r, z = joint((of_x + of_h)[:, :2], slice(2)).transpose(1, 0, 2)
        n = of_h[:, 2:] if gains is None else standardised(of_h[:, 2:], gains[2:])
        n = of_x[:, 2] + b_ih[2] + sigmoid(r) * (n[:, 0] + b_hh[2])
        return (1 - sigmoid(z)) * np.tanh(n) + sigmoid(z) * h, c
    sums = joint(of_x + of_h)
    if cell == "lstm":
        return lstm_step(sums, c)
    if cell == "peephole_lstm":
        return peephole_step(sums, c, layer["weight_ch"])
    return {"rnn_tanh": np.tanh, "rnn_relu": lambda s: np.clip(s, 0, 1e6)}[cell](sums[:, 0]), c


def network_step(cell, x, hs, cs, layers, keep=None, keep_h=None):
    """Stacked layers; hs and cs are lists of (B, H) that are replaced in place -> h of the top.

    keep and keep_h (layers, B, H): what passes to the next layer, and a layer's own h, are multiplied by them.
    """
    for k, layer in enumerate(layers):
        hs[k], cs[k] = cell_step(cell, x, hs[k], cs[k], layer, 1.0 if keep_h is None else keep_h[k])
        x = hs[k] if keep is None else hs[k] * keep[k]
    return hs[-1]


def huber_loss(e, huber):
    """Half the square of e, and linear beyond `huber`."""
    return 0.5 * e * e if abs(e) <= huber else huber * (abs(e) - 0.5 * huber)


def gaussian_loss(mean, y, wished, huber):
    """s + rho(error / exp(s)), negative log-likelihood of a normal distribution within `huber` scales; s = 5 tanh(y / 5)."""
    s = 5 * np.tanh(y / 5)
    return s + huber_loss((mean - wished) / np.exp(s), huber)


def pinball_loss(y, wished, level):
    """That of the quantile that a share `level` of values lies below."""
    return level * (wished - y) if wished > y else (1 - level) * (y - wished)


def row_loss(y, target, D, huber, levels, weight):
    """Loss of outputs y and target (D + M) of one row: of D heads, then of means and log-scales, or of quantiles."""
    loss = sum(huber_loss(e, huber) for e in (y[:D] - target[:D])[~np.isnan(target[:D])])
    M = len(target) - D
    for m, wished in enumerate(target[D:]):
        outputs = y[D + m :: M] if M else ()
        if np.isnan(wished):
            continue
        if len(levels):
            loss += weight * sum(pinball_loss(q, wished, level) for q, level in zip(outputs, levels, strict=True))
        else:
            loss += weight * gaussian_loss(*outputs, wished, huber)
    return loss


def window_loss(cell, layers, V, bias, x, target, hs, cs, huber, scale, keep, keep_h, D=None, levels=(), weight=0.0):
    """Loss of a window x (T, B, I), target (T, B, D + M) with NaN for nothing, summed and scaled."""
    loss = 0.0
    hs, cs = list(hs), list(cs)
    D = target.shape[2] if D is None else D
    for t in range(len(x)):
        y = network_step(cell, x[t], hs, cs, layers, keep[:, t], keep_h) @ V + bias
        loss += sum(row_loss(*row, D, huber, levels, weight) for row in zip(y, target[t], strict=True))
    return loss * scale


def ridge(A, Y, penalty, intercept=True):
    """Weights (P, D) of Y on A (N, P); with `intercept` the first column of A is constant and not penalised."""
    P = A.shape[1]
    R = penalty * np.eye(P)
    if intercept:
        R[0, 0] = 0
    return np.linalg.lstsq(A.T @ A + R, A.T @ Y, rcond=None)[0]


SPANS = (6, 12, 25, 50, 100)


class Regressors:
    """The last three values and five EWMAs of every feature, begun as if the first value had always been there."""

    def __init__(self, z, bound=200.0):
        self.bound = bound
        self.rows = [np.clip(np.array(z, float), -bound, bound) for _ in range(8)]

    def vector(self):
        """(8 D): lag 1 of all features, lag 2, lag 3, then EWMA by EWMA."""
        return np.concatenate(self.rows)

    def absorb(self, z):
        z = np.clip(z, -self.bound, self.bound)
        self.rows[:3] = [z.copy(), self.rows[0], self.rows[1]]
        for j, span in enumerate(SPANS):
            self.rows[3 + j] = self.rows[3 + j] + 2 / (span + 1) * (z - self.rows[3 + j])


def calendar(time, first, last):
    """Sine and cosine of day, half day and week (6); 0 until the history from `first` to `last` covers a day, a week."""
    day = 86_400 * 10**9
    values = []
    for period, covered in ((day, day), (day / 2, day), (7 * day, 7 * day)):
        turn = 2 * np.pi * (time / period)
        values += [math.sin(turn), math.cos(turn)] if first is not None and last - first >= covered else [0.0, 0.0]
    return np.array(values)


def exceeded_by(scores, share):
    """The score that a share of the scores exceed."""
    return float(np.quantile(scores, 1 - share))


class Stream:
    """One stream under frozen weights of which everything is known: expected value and score, record by record.

    skips (3, P, D), raw, clipped, time alone; V (H, 3 D); mean and spread (I); usual (3, D); variability and ranges
    (2, D), mean and variance, low and high; parts (2, 5), mean and variance of the parts.
    """

    def __init__(
        self, cell, layers, V, V_bias, skips, mean, spread, usual, variability, ranges, parts, *,
        span, scale_span=1000.0, clip=5.0, floor=1e-3, weights=(1, 1, 1, 0.5, 0.35),
    ):  # fmt: skip
        self.cell, self.layers, self.V, self.V_bias, self.skips = cell, layers, V, V_bias, skips
        self.mean, self.spread, self.usual, self.recent = mean, spread, np.maximum(usual, floor), np.array(usual, float)
        self.variability, self.ranges, self.parts, self.weights = variability, ranges, parts, weights
        self.gain, self.scale_gain, self.clip = 2 / (span + 1), 2 / (scale_span + 1), clip
        self.features = len(usual[0])
        self.hs = [np.zeros((1, layer["weight_hh"].shape[1])) for layer in layers]
        self.cs = [h.copy() for h in self.hs]
        self.regressors = self.clipped = None
        self.unrest = np.zeros(self.features)
        self.past = []
        self.smooth = parts[0].copy()
        self.first = self.last = None

    def score(self, x, time):
        """x (D + K) with NaN for missing, time in ns -> (expected (D), parts of the score (5))."""
        D = self.features
        z = np.clip((x - self.mean) / self.spread, -1e9, 1e9)
        if self.regressors is None:
            begin = np.nan_to_num(z[:D])
            self.regressors, self.clipped = Regressors(begin), Regressors(begin, self.clip)
        known = np.clip(np.nan_to_num(z[D:]), -self.clip, self.clip)
        h = network_step(self.cell, np.concatenate([self.clipped.rows[0], known])[None], self.hs, self.cs, self.layers)[
            0
        ]
        own = np.split(h @ self.V + self.V_bias, 3)
        turns = calendar(time, self.first, self.last)
        known = np.concatenate([known, turns])
        self.first = time if self.first is None else self.first
        self.last = time
        for head, regressors in enumerate((self.regressors, self.clipped)):
            own[head] = own[head] + np.concatenate([[1.0], regressors.vector(), known]) @ self.skips[head]
        own[2] = own[2] + turns @ self.skips[2][-len(turns) :]
        predicted = np.clip(own, -200, 200)
        missing = np.isnan(z[:D])
        z = np.where(missing, predicted[0], z[:D])
        error = np.where(missing, 0.0, z - predicted)
        present = max(int((~missing).sum()), 1)
        u2 = error**2 / (self.usual * np.maximum(self.recent, self.usual))
        values = [math.sqrt(total / present) for total in u2.sum(axis=1)]
        values.append(self.variability_of(z))
        values.append(
            np.where(missing, 0, np.maximum(0, np.maximum(z - self.ranges[1], self.ranges[0] - z))).sum() / present
        )
        if not missing.all():
            for part, value in enumerate(values):
                if value is not None:
                    self.smooth[part] += self.gain * (min(value, 1000.0) - self.smooth[part])
        unusual = (self.smooth - self.parts[0]) / np.maximum(np.sqrt(self.parts[1]), 0.05)
        size = np.minimum(np.abs(error), 100 * np.maximum(self.usual, self.recent))
        self.recent = np.where(missing, self.recent, self.recent + self.scale_gain * (size - self.recent))
        self.regressors.absorb(z)
        self.clipped.absorb(z)
        return self.mean[:D] + self.spread[:D] * predicted[0], self.weights * np.log1p(np.maximum(unusual, 0))

    def variability_of(self, z):
        """Mean over features of how unusual the standard deviation of the last ten z is; None while there are fewer."""
        self.past = [*self.past[-9:], z]
        if len(self.past) < 10:
            return None
        spread = np.sqrt(self.variability[1])
        unit = np.maximum(spread, 0.1)
        fixed = np.maximum(spread / unit, 0.05)
        away = np.abs(np.std(self.past, axis=0) - self.variability[0]) / unit
        u = away / np.sqrt(fixed * np.maximum(self.unrest, fixed))
        self.unrest += self.scale_gain * (away - self.unrest)
        return u.mean()


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
