"""A synthesizer of adult with new margins: how near they are, in which seconds, and whether its rows can be told apart.

    OMP_NUM_THREADS=1 python benchmarks/studies/raking.py --data PATH/tables/adult.csv.gz --budget 120

Five margins are set: the shares of sex, race, marital status and income, and four ranges of age. Held-out rows are
weighted to the same margins and drawn by these weights; the classifier of `c2st` then compares them with rows of the
raked model, and, as a reference, held-out rows with rows of the model as it is.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch

from sklearn_si._utils.weights import systematic_rows
from sklearn_si.metrics import c2st
from sklearn_si.tables import TableSynthesizer
from sklearn_si.tables._raking import cells_of, proportional_factors

TOTALS = {
    "sex": {"Female": 0.51, "Male": 0.49},
    "race": {"White": 0.72, "Black": 0.16, "Asian-Pac-Islander": 0.08, "Amer-Indian-Eskimo": 0.02, "Other": 0.02},
    "marital_status": {"Married-civ-spouse": 0.38, "Never-married": 0.37},
    "income_over_50k": {"<=50K": 0.68, ">50K": 0.32},
    "age": {(None, 30): 0.25, (30, 45): 0.35, (45, 60): 0.25, (60, None): 0.15},
}


def share(X, column, level):
    """The share of the rows with a level."""
    if isinstance(level, tuple):
        low, high = (-np.inf if level[0] is None else level[0]), (np.inf if level[1] is None else level[1])
        return ((X[column] >= low) & (X[column] < high)).mean()
    return (X[column] == level).mean()


def main():
    """Fit, rake, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of the fit")
    parser.add_argument("--rows", type=int, default=10_000, help="rows that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    X = pd.read_csv(args.data).sample(frac=1.0, random_state=args.seed)
    train, held = X[: len(X) // 2], X[len(X) // 2 :].reset_index(drop=True)
    model = TableSynthesizer(max_time=args.budget, random_state=args.seed).fit(train)
    began = time.perf_counter()
    raked = model.rake(TOTALS)
    fitted = time.perf_counter() - began
    drawn = raked.sample(args.rows)
    print(f"  rake {fitted:.1f} s, {args.rows} rows {time.perf_counter() - began - fitted:.1f} s", flush=True)
    report = raked.report_
    print(f"  effective share {report.effective_share:.2f}, largest weight {report.largest_weight:.1f}", flush=True)
    gaps = {c: max(abs(share(drawn, c, level) - p) for level, p in total.items()) for c, total in TOTALS.items()}
    print("  largest difference of a share: " + ", ".join(f"{c} {100 * gap:.3f} %" for c, gap in gaps.items()))
    cells = cells_of(held, list(held.columns), list(TOTALS))
    labels = [margin.labels(cells) for margin in raked.margins]
    factors = proportional_factors(labels, raked.margins)
    weight = np.prod([f[own] for f, own in zip(factors, labels, strict=True)], axis=0)
    n = min(4000, int(len(held) / weight.max()))
    real = held.iloc[systematic_rows(labels, weight, n, np.random.default_rng(args.seed))]
    print(f"  C2ST of {n} rows: raked {c2st(real, drawn[:n]):.3f}", flush=True)
    print(f"  C2ST of {n} rows: the model as it is {c2st(held[:n], model.sample(n)):.3f}", flush=True)


if __name__ == "__main__":
    main()
