"""Outliers that were put into tables: DensityOutlierDetector beside pyod, and the rates of its p-values.

    python benchmarks/studies/outliers.py find --data PATH [--sets NAME ...] [--methods NAME ...] [--seconds S]
    python benchmarks/studies/outliers.py rates --data PATH [--splits N]

find: kinds of outliers are put into the training rows of the sets of the density study (at most 2,000 rows): 5 % far
rows (three times as far out), 5 % with one wrong cell (uniform over the range of its column), 5 % local (a Gaussian
mixture of the table with five times its covariances), 3 % in one tight clump, 5 % with shuffled columns. Each method is
fitted to all rows and scores them: area under the ROC curve and average precision, and mean ranks. pyod's methods have
their defaults. "cells" is the lowest of the attributions of a row, in units of the columns.

rates: p-values of held-out rows of each set, splits at random: shares at or below .1 and .01, and the false discovery
rate of Benjamini and Hochberg at 10 % where a tenth of the held-out rows are far.
"""

import argparse
import time
import warnings

import numpy as np
from scipy.stats import false_discovery_control, rankdata
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine, make_friedman1, make_swiss_roll
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture

from density_sets import load
from sklearn_si import InterpolantFlow
from sklearn_si.outliers import DensityOutlierDetector

SETS = [
    "concrete",
    "wine",
    "energy",
    "airfoil",
    "breast-cancer",
    "diabetes",
    "protein",
    "two-moons",
    "mixture-16",
    "funnel",
]
ROWS = 2000


def far(X, n, rng):
    return 3 * X[rng.choice(len(X), n)]


def cell(X, n, rng):
    rows = X[rng.choice(len(X), n)].copy()
    column = rng.integers(X.shape[1], size=n)
    rows[np.arange(n), column] = rng.uniform(X.min(0)[column], X.max(0)[column])
    return rows


def local(X, n, rng):
    mixture = GaussianMixture(5, reg_covar=1e-4, random_state=0).fit(X)
    which = rng.choice(5, n, p=mixture.weights_)
    factors = np.linalg.cholesky(5 * mixture.covariances_)[which]
    return mixture.means_[which] + np.einsum("nij,nj->ni", factors, rng.normal(size=(n, X.shape[1])))


def clump(X, n, rng):
    centre = rng.choice([-1, 1], X.shape[1]) * rng.uniform(2, 4, X.shape[1])
    return centre + 0.05 * rng.normal(size=(n, X.shape[1]))


def shuffled(X, n, rng):
    return np.column_stack([rng.choice(x, n) for x in X.T])


KINDS = {"far": (far, 0.05), "cell": (cell, 0.05), "local": (local, 0.05), "clump": (clump, 0.03),
         "shuffled": (shuffled, 0.05)}  # fmt: skip


def flow(seconds):
    return InterpolantFlow(max_time=seconds, random_state=0)


def mixture():
    return GaussianMixture(8, reg_covar=1e-4, random_state=0)


def ours(X, seconds):
    return -DensityOutlierDetector(flow(seconds), random_state=0).fit(X).score_samples(X)


def robust(X, seconds):
    return -DensityOutlierDetector(flow(seconds), robust=True, random_state=0).fit(X).score_samples(X)


def ours_mixture(X, seconds):
    return -DensityOutlierDetector(mixture(), random_state=0).fit(X).score_samples(X)


def robust_mixture(X, seconds):
    return -DensityOutlierDetector(mixture(), robust=True, random_state=0).fit(X).score_samples(X)


def cells_mixture(X, seconds):
    detector = DensityOutlierDetector(mixture(), random_state=0).fit(X)
    return -(detector.attributions(X) + np.log(X.std(0))).min(1)


def cells_robust(X, seconds):
    detector = DensityOutlierDetector(mixture(), robust=True, random_state=0).fit(X)
    return -(detector.attributions(X) + np.log(X.std(0))).min(1)


def cells_flow(X, seconds):
    """Of the rows of the lowest density alone, a tenth of all: the others keep their order."""
    detector = DensityOutlierDetector(flow(seconds), random_state=0).fit(X)
    score = detector.score_samples(X)
    low = np.argsort(score)[: len(X) // 10]
    strange = -1e6 - score
    strange[low] = -(detector.attributions(X[low]) + np.log(X.std(0))).min(1)
    return strange


def of_pyod(module, name):
    def scores(X, seconds):
        found = __import__(f"pyod.models.{module}", fromlist=[name])
        return getattr(found, name)().fit(X).decision_scores_

    return scores


METHODS = {
    "ours": ours, "robust": robust, "ours-gmm": ours_mixture, "robust-gmm": robust_mixture, "cells-gmm": cells_mixture,
    "cells-rob": cells_robust, "cells": cells_flow, "ECOD": of_pyod("ecod", "ECOD"), "COPOD": of_pyod("copod", "COPOD"),
    "KNN": of_pyod("knn", "KNN"), "IForest": of_pyod("iforest", "IForest"), "LOF": of_pyod("lof", "LOF"),
}  # fmt: skip


def find(args):
    tables, args.sets = {}, args.sets or SETS
    for name in args.sets:
        for kind, (make, share) in KINDS.items():
            for seed in range(args.seeds):
                X = load(name, args.data, seed, ROWS).train
                rng = np.random.default_rng([seed, 11])
                n = max(5, round(share * len(X)))
                rows, strange = np.vstack([X, make(X, n, rng)]), np.repeat([0, 1], [len(X), n])
                order = rng.permutation(len(rows))
                rows, strange = rows[order], strange[order]
                parts = []
                for method in args.methods:
                    began = time.perf_counter()
                    score = METHODS[method](rows, args.seconds)
                    seconds = time.perf_counter() - began
                    found = roc_auc_score(strange, score), average_precision_score(strange, score), seconds
                    tables.setdefault((name, kind, method), []).append(found)
                    parts.append(f"{method} {found[0]:.3f}/{found[1]:.3f}")
                print(f"{name:13} {kind:8} {seed}  " + "  ".join(parts), flush=True)
    summary(tables, args)


def summary(tables, args):
    print("\nmean over sets: AUC / average precision; mean rank of both (1 is best); seconds")
    mean = {key: np.mean(values, axis=0) for key, values in tables.items()}
    ranks = {m: [] for m in args.methods}
    for name in args.sets:
        for kind in KINDS:
            for j in (0, 1):
                order = rankdata([-mean[name, kind, m][j] for m in args.methods])
                for m, r in zip(args.methods, order, strict=True):
                    ranks[m].append((kind, j, r))
    print(f"{'':11}" + "".join(f"{kind:>14}" for kind in KINDS) + f"{'rank AUC':>10}{'rank AP':>9}{'s':>7}")
    for m in args.methods:
        cells = [np.mean([mean[name, kind, m] for name in args.sets], axis=0) for kind in KINDS]
        both = [np.mean([r for _, k, r in ranks[m] if k == j]) for j in (0, 1)]
        print(f"{m:11}" + "".join(f"{c[0]:8.3f}/{c[1]:.3f}" for c in cells)
              + f"{both[0]:10.2f}{both[1]:9.2f}{np.mean([c[2] for c in cells]):7.2f}")  # fmt: skip


def rates(args):
    """Rates of p-values over sets and splits."""
    more = {
        "sk-wine": load_wine().data, "sk-iris": load_iris().data, "sk-cancer": load_breast_cancer().data[:, :10],
        "sk-diabetes": load_diabetes().data, "friedman": make_friedman1(1500, random_state=0)[0],
        "swiss-roll": make_swiss_roll(2000, noise=0.5, random_state=0)[0],
    }  # fmt: skip
    names = args.sets or [*SETS, "8-gaussians", "checkerboard", "mixture-32", *more]
    found = []
    for name in names:
        rng = np.random.default_rng(12)
        X = more.get(name)
        if X is None:
            parts = load(name, args.data, 0, 2500)
            X = np.vstack([parts.train, parts.valid, parts.test])
        X = (X - X.mean(0)) / X.std(0) + 0.01 * rng.normal(size=X.shape)
        own = []
        for split in range(args.splits):
            order = rng.permutation(len(X))
            n = len(X) * 2 // 3
            # one in five with a flow of few steps, whose density is bad
            density = mixture()
            if split % 5 == 0:
                density = InterpolantFlow(max_iter=20, hidden_layer_sizes=(16,), preprocessing="whiten", ode_tol=0.1)
            detector = DensityOutlierDetector(density, calibration_fraction=0.3, random_state=split).fit(X[order[:n]])
            p = detector.p_values(X[order[n:]])
            strange = detector.p_values(far(X, max(1, len(p) // 9), rng))
            discovered = false_discovery_control(np.concatenate([p, strange])) <= 0.1
            false = discovered[: len(p)].sum() / max(1, discovered.sum())
            own.append((np.mean(p <= 0.1), np.mean(p <= 0.01), false))
        found.append(np.mean(own, axis=0))
        print(f"{name:13} n={len(X):5}  p<=.1: {found[-1][0]:.4f}  p<=.01: {found[-1][1]:.4f}  "
              f"false discoveries at 10 %: {found[-1][2]:.3f}", flush=True)  # fmt: skip
    means = np.mean(found, axis=0)
    print(
        f"mean of {len(names)} sets  p<=.1: {means[0]:.4f}  p<=.01: {means[1]:.4f}  false discoveries: {means[2]:.3f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["find", "rates"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--methods", nargs="+", default=[*METHODS])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--splits", type=int, default=10)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    {"find": find, "rates": rates}[args.what](args)


if __name__ == "__main__":
    main()
