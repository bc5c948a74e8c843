"""Whether P(Y <= y | x) of new rows is uniform, for five distributions that are known.

    python benchmarks/studies/pit.py --rows 2000 --test-rows 5000

For each: the shares of the values below .1 and above .9 (either is .1 for the true distribution, with a standard error
of .004 for 5,000 rows), and the coverage of intervals of 50 and 90 %, without and with calibration.
"""

import argparse
import time

import numpy as np

from sklearn_si import InterpolantRegressor

COLUMNS = 3


def skewed(x, rng):
    """Lognormal, its location in x."""
    return np.exp(0.6 * x[:, 0] + 0.7 * rng.normal(size=len(x)))


def two_humps(x, rng):
    """Two normals, whose shares depend on x."""
    upper = rng.random(len(x)) < 1 / (1 + np.exp(-2 * x[:, 1]))
    return x[:, 0] + np.where(upper, 2.0, -2.0) + 0.4 * rng.normal(size=len(x))


def heavy_tails(x, rng):
    """Student's t with three degrees of freedom."""
    return np.sin(2 * x[:, 0]) + 0.5 * rng.standard_t(3, size=len(x))


def heteroscedastic(x, rng):
    """A normal whose deviation grows twentyfold along x."""
    return x[:, 1] + np.exp(0.75 * x[:, 0]) * rng.normal(size=len(x))


def discrete_continuous(x, rng):
    """Zero in some rows, and a gamma distribution in the others, as claims are."""
    none = rng.random(len(x)) < 1 / (1 + np.exp(-x[:, 0]))
    return np.where(none, 0.0, rng.gamma(2.0, np.exp(0.5 * x[:, 1])))


DISTRIBUTIONS = [skewed, two_humps, heavy_tails, heteroscedastic, discrete_continuous]


def pit_values(model, X, y, rng):
    """P(Y < y) + U P(Y = y), which is uniform for the true distribution, with atoms as without."""
    upper = model.predict_cdf(X, y)
    lower = model.predict_cdf(X, np.nextafter(y, -np.inf)) if (np.diff(np.sort(y)) == 0).any() else upper
    return lower + rng.random(len(y)) * (upper - lower)


def measured(model, X, y, rng):
    """The shares and the coverages of one model, as text."""
    u = pit_values(model, X, y, rng)
    told = [f"below .1: {(u < 0.1).mean():.3f}  above .9: {(u > 0.9).mean():.3f}"]
    for coverage in (0.5, 0.9):
        low, high = model.predict_interval(X, coverage).T
        told.append(f"{coverage:.0%} {np.mean((low <= y) & (y <= high)):.3f}")
    return "  ".join([*told, f"log-density {model.predict_log_density(X, y).mean():+.3f}"])


def main():
    """Fit all, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of distributions; all by default")
    parser.add_argument("--calibrate", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--n-estimators", type=int, default=1)
    args = parser.parse_args()
    for draw in DISTRIBUTIONS:
        if args.only and draw.__name__ not in args.only:
            continue
        rng = np.random.default_rng(args.seed)
        X = rng.uniform(-2, 2, size=(args.rows + args.test_rows, COLUMNS))
        y = draw(X, rng)
        for calibrate in args.calibrate:
            began = time.perf_counter()
            settings = {"calibrate": True} if calibrate else {}
            model = InterpolantRegressor(random_state=args.seed, n_estimators=args.n_estimators, **settings)
            model.fit(X[: args.rows], y[: args.rows])
            seconds = time.perf_counter() - began
            told = measured(model, X[args.rows :], y[args.rows :], rng)
            kind = "calibrated" if calibrate else "as it is"
            print(f"{draw.__name__:<20}{kind:<11}{told}  {model.base_}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
