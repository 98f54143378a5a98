#!/usr/bin/env python3
"""Makes tests/golden/analysis/statistics.json: what tools/analysis must compute, by SciPy and libpysal.

esda is not needed: its I and p_sim are written out below from its documentation. The shuffles of the permutation
test are ours (engine/random.h), computed here a second time. All inputs are multiples of 1/64, which a float holds.

    /usr/bin/python3 tools/peer/statistics_golden.py > tests/golden/analysis/statistics.json
"""
import json
import sys

import libpysal
import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20261125)


def draw(*shape, shift=0.0, scale=1.0):
    return np.round((shift + scale * rng.standard_normal(shape)) * 64) / 64


def welch(a, b):
    t, p = stats.ttest_ind(a, b, equal_var=False)
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return dict(t=t, df=df, p=p)


def benjamini_hochberg(p):
    order, m = np.argsort(p), len(p)
    q = np.minimum.accumulate((np.minimum(1, p[order] * m / np.arange(1, m + 1)))[::-1])[::-1]
    return q[np.argsort(order)]


def interval(x, confidence):
    low, high = stats.t.interval(confidence, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    return dict(values=x, confidence=confidence, mean=x.mean(), low=low, high=high)


def dimensions(x):
    values = np.linalg.eigvalsh(np.cov(x, rowvar=False))
    return dict(rows=x.shape[0], units=x.shape[1], activations=x, value=values.sum() ** 2 / (values**2).sum())


def contrast(rows, cols, positive, negative):
    """Maps of a contrast between positive and negative [stimuli, units], the units of places[unit]."""
    places = np.array([divmod(int(k), cols) for k in rng.permutation(rows * cols)])
    cells = np.array([divmod(k, cols) for k in range(rows * cols)])
    squares = ((cells[:, None] - places[None]) ** 2).sum(-1)
    maps = []
    for fwhm in (0, 1, 2, 2.5):
        sigma = fwhm / np.sqrt(8 * np.log(2))
        kernel = np.exp(-squares / (2 * sigma**2)) / (2 * np.pi * sigma**2) if fwhm else (squares == 0) * 1.0
        t, p = stats.ttest_ind(positive @ kernel.T, negative @ kernel.T, equal_var=False)
        maps.append(dict(fwhm=fwhm, t=t, p=p))
    return dict(rows=rows, cols=cols, places=places, positive=positive, negative=negative, maps=maps)


def philox(counter, key):
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & low, (p >> 32) ^ c[3] ^ k[1], p & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def shuffle(seed, k, n):
    """engine/random.h: Random(seed, purpose 32, k).permutation(n)."""
    bits = (x for block in range(1 << 32) for x in philox([block, 32, k, 0], [seed & 0xFFFFFFFF, seed >> 32]))
    most = 2**64 - 1
    values = list(range(n))
    for i in range(n):
        count = n - i
        while (x := next(bits) << 32 | next(bits)) >= most - most % count:
            pass
        j = i + x % count
        values[i], values[j] = values[j], values[i]
    return values


def moran(rows, cols, x, permutations, seed):
    case = dict(rows=rows, cols=cols, map=x, permutations=permutations, seed=seed, tests=[])
    for contiguity in ("queen", "rook"):
        for weights, transform in (("row_standardised", "r"), ("binary", "b")):
            w = libpysal.weights.lat2W(rows, cols, rook=contiguity == "rook")
            w.transform = transform

            def i_of(y):
                z = y - y.mean()
                return w.n / w.s0 * (z * libpysal.weights.lag_spatial(w, z)).sum() / (z * z).sum()

            i = i_of(x)
            null = np.array([i_of(x[shuffle(seed, k, rows * cols)]) for k in range(permutations)])
            larger = (null >= i).sum()
            if permutations - larger < larger:
                larger = permutations - larger
            case["tests"].append(dict(contiguity=contiguity, weights=weights, i=i, p=(larger + 1) / (permutations + 1),
                                      null_mean=null.mean(), null_sd=null.std()))
    return case


golden = dict(
    made_by=f"tools/peer/statistics_golden.py with SciPy {scipy.__version__}, libpysal {libpysal.__version__}, "
            f"NumPy {np.__version__}",
    welch=[dict(a=a, b=b, **welch(a, b)) for a, b in (
        (draw(2), draw(2, shift=1)),
        (draw(3, scale=5), draw(9, shift=2)),
        (draw(20), draw(20)),
        (draw(12, shift=1000, scale=0.25), draw(7, shift=1000.5, scale=0.5)),
        (draw(16, shift=9, scale=0.05), draw(15, shift=-9, scale=0.05)),
        (np.full(4, 2.5), draw(5)))],
    benjamini_hochberg=[dict(p=p, q=benjamini_hochberg(p)) for p in (
        rng.random(1), rng.random(12), rng.random(30) ** 4, np.array([0.5, 0.01, 0.01, 1, 0, 0.5]))],
    mean_interval=[interval(draw(2), 0.95), interval(draw(9, shift=3), 0.95), interval(draw(30, scale=7), 0.99)],
    effective_dimensionality=[dimensions(draw(6, 4)), dimensions(draw(5, 11)),
                              dimensions(draw(9, 2) @ np.array([[1, 2, 0, 1], [0, 1, 4, -1]]) + 100)],
    contrasts=[contrast(4, 5, draw(6, 20), draw(9, 20, shift=0.5)),
               contrast(1, 7, draw(2, 7, shift=50), draw(3, 7, shift=50, scale=3))],
    moran=[moran(5, 7, draw(35) + np.arange(35) // 7 * 0.25, 199, 7),
           moran(6, 4, draw(24), 99, 2**40 + 3),
           moran(1, 9, draw(9), 99, 1),
           moran(7, 7, -1.0 * (np.indices((7, 7)).sum(0).ravel() % 2) + draw(49, scale=0.5), 99, 5)])
json.dump(golden, sys.stdout, default=lambda x: x.tolist() if isinstance(x, np.ndarray) else x.item(),
          separators=(",", ":"))
print()
