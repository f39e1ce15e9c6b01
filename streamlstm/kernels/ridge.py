"""Ridge regression from running sums: the linear skip's weights, with an intercept that is not penalised.

| letter | size |
|---|---|
| P | regressors |
| D | targets |
"""

import numpy as np

from streamlstm.kernels.compiling import jit


@jit
def add_moments(regressors, target, gram, cross, used):
    """Adds rows to gram (P, P, lower half) and cross (P, D), float64, row after row; rows with a NaN target are skipped.

    regressors (N, P) and target (N, D) float32; returns `used` plus the number of rows added.
    """
    N, P = regressors.shape
    D = target.shape[1]
    for n in range(N):
        whole = True
        for d in range(D):
            whole = whole and not np.isnan(target[n, d])
        if not whole:
            continue
        used += 1
        for p in range(P):
            value = np.float64(regressors[n, p])
            for q in range(p + 1):
                gram[p, q] += value * regressors[n, q]
            for d in range(D):
                cross[p, d] += value * target[n, d]
    return used


@jit
def scale_moments(gram, cross, factor):
    """Multiplies gram (P, P, lower half) and cross (P, D) by `factor`: rows added before count for less."""
    P, D = cross.shape
    for p in range(P):
        for q in range(p + 1):
            gram[p, q] *= factor
        for d in range(D):
            cross[p, d] *= factor


@jit
def solve_ridge(gram, cross, penalty, intercept, factor, out):
    """Writes the weights out (P, D) float64 that minimise squared error + penalty |w|^2; factor (P, P) is scratch.

    With `intercept` the first regressor is a constant, and its weight is not penalised. Cholesky's factorisation of
    gram + penalty, which is positive definite for penalty > 0.
    """
    P, D = cross.shape
    for p in range(P):
        for q in range(p + 1):
            total = gram[p, q]
            if p == q:
                total += 1e-9 if intercept and p == 0 else penalty
            for k in range(q):
                total -= factor[p, k] * factor[q, k]
            factor[p, q] = np.sqrt(max(total, 1e-12)) if p == q else total / factor[q, q]
    for d in range(D):
        for p in range(P):
            total = cross[p, d]
            for k in range(p):
                total -= factor[p, k] * out[k, d]
            out[p, d] = total / factor[p, p]
        for p in range(P - 1, -1, -1):
            total = out[p, d]
            for k in range(p + 1, P):
                total -= factor[k, p] * out[k, d]
            out[p, d] = total / factor[p, p]
