"""How long InterpolantFlow().fit(X) takes without max_time, and a neural spline flow in the same time.

    OMP_NUM_THREADS=1 python benchmarks/studies/default_fit.py --seeds 3

Tables of ten columns: clusters, bent into each other (x_2 += x_1^2 / 2 ...), with skewed and heavy-tailed columns.
Prints the seconds of our fit on one thread, and the mean log-likelihood of 2,000 fresh rows under ours and under zuko's
spline flow with its own tuning within these seconds (as in density.py: both hold out rows of the same table).
"""

import argparse
import time
import warnings

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from density_peers import METHODS
from density_sets import Table, split
from sklearn_si import InterpolantFlow


def table(rows, seed):
    """Rows of the bent clusters."""
    shape = np.random.default_rng(10)
    centres, mixing = 2 * shape.normal(size=(4, 10)), shape.normal(size=(4, 10, 10)) / 10**0.5
    rng = np.random.default_rng([seed, rows])
    which = rng.integers(4, size=rows)
    X = centres[which] + np.einsum("nij,nj->ni", mixing[which], rng.normal(size=(rows, 10)))
    X[:, 1] += 0.5 * X[:, 0] ** 2
    X[:, 2] *= np.exp(0.3 * X[:, 3])
    X[:, 4] = np.exp(0.5 * X[:, 4])
    X[:, 5] += 0.3 * rng.standard_t(3, size=rows)
    return Table("bent clusters", X)


def compare(rows, seed):
    """One line: seconds, and both log-likelihoods."""
    # split() holds out a tenth each for validation and test
    parts = split(table(round(rows / 0.9) + 2500, seed), seed)
    train = np.concatenate([parts.train, parts.valid])[:rows]
    began = time.perf_counter()
    flow = InterpolantFlow(random_state=seed, device="cpu").fit(train)
    seconds = time.perf_counter() - began
    ours = flow.score_samples(parts.test[:2000])
    held = rows // 10
    log_density, _ = METHODS["nsf"](train[held:], train[:held], seconds, seed)
    gap = ours - log_density(parts.test[:2000])
    error = gap.std() / len(gap) ** 0.5
    head = f"{rows} rows, seed {seed}: {seconds:.1f} s, ours {ours.mean():.3f}"
    print(f"{head}, ours minus NSF {gap.mean():+.3f} ({error:.3f})", flush=True)


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 50_000])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for rows in args.rows:
            for seed in range(args.seeds):
                compare(rows, seed)


if __name__ == "__main__":
    main()
