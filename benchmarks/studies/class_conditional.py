"""Conditional samples against those of models fitted to each class alone, by a classifier two-sample test.

    python benchmarks/studies/class_conditional.py --data PATH/tables/diamonds.csv.gz --seeds 3

For each class: C2ST = 1 - |2 AUC - 1| of HistGradientBoostingClassifier, out of fold, between sampled rows and held-out
rows of the class, equal numbers of each (1: cannot be told apart). The noise of the difference is its spread over seeds
and classes. All rows of the table are standardised; both models have the same settings and the same seconds in all.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict, train_test_split

from sklearn_si import InterpolantFlow


def c2st(A, B):
    """1 - |2 AUC - 1| between two samples, cut to equal numbers of rows."""
    n = min(len(A), len(B))
    X, y = np.vstack([A[:n], B[:n]]), np.repeat([0, 1], n)
    p = cross_val_predict(HistGradientBoostingClassifier(random_state=0), X, y, cv=5, method="predict_proba")[:, 1]
    return 1 - abs(2 * roc_auc_score(y, p) - 1)


def load(path, target, rows, seed):
    """Standardised numeric columns, dequantised by a hundredth of their deviation, and the classes."""
    frame = pd.read_csv(path).dropna()
    frame = frame.sample(min(rows, len(frame)), random_state=seed)
    X = frame.select_dtypes("number").to_numpy(float)
    X = (X - X.mean(0)) / X.std(0)
    return X + 0.01 * np.random.default_rng(seed).normal(size=X.shape), frame[target].to_numpy(str)


def one_seed(args, seed):
    """C2ST of both models for each class."""
    X, y = load(args.data, args.target, args.rows, seed)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    settings = {"random_state": seed, "preprocessing": "whiten"}
    together = InterpolantFlow(**settings, max_time=args.budget).fit(X, condition=y)
    results = []
    for label in np.unique(y):
        real = X_test[y_test == label]
        share = args.budget * (y == label).mean()
        alone = InterpolantFlow(**settings, max_time=max(share, args.budget / 10)).fit(X[y == label])
        sampled = (together.sample(len(real), condition=label), alone.sample(len(real)))
        results.append((label, len(real), *(c2st(rows, real) for rows in sampled)))
        print(
            f"seed {seed}  {label:<12}{len(real):>6} rows  conditional {results[-1][2]:.3f}  alone {results[-1][3]:.3f}"
        )
    return results


def main():
    """Run the seeds and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", default="cut")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of training of the conditional model")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    results = [r for seed in range(args.seeds) for r in one_seed(args, seed)]
    gap = np.array([r[2] - r[3] for r in results])
    error = gap.std(ddof=1) / len(gap) ** 0.5
    print(f"conditional - alone: {gap.mean():+.3f} +- {error:.3f} over {len(gap)} classes and seeds")
    print("no worse within its noise:", "seen" if gap.mean() > -2 * error else "NOT seen")


if __name__ == "__main__":
    main()
