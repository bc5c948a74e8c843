"""How good is the level that `tune_noise_level` takes, and what does it cost beside the drawing of its rows?

    python benchmarks/studies/noise_levels.py --data PATH --tables protein elevators wine airfoil concrete

Each table is fitted with each training budget (gradient steps), the level is tuned on validation rows, and every level
is then judged by test rows that nothing has seen: the loss is the energy distance of the level that was taken beyond
that of the best level. It counts as met where it is at most 0.02, or no more than twice its standard error over draws.
"""

import argparse
import time

import numpy as np

from sklearn_si import InterpolantDiffusion
from sklearn_si.metrics import energy_distance

# Largest loss of the level that is taken, in squared energy distance.
LARGEST_LOSS = 0.02
# Largest seconds of the processor of `tune_noise_level`, in units of those of the drawing alone.
LARGEST_COST = 1.1
# Draws by which a level is judged in the end.
FINAL_DRAWS = 4


def parts(path, rows, seed=0):
    """Rows for training, validation and test: a half and two quarters."""
    X = np.loadtxt(path, delimiter=",")
    X = X[np.random.default_rng(seed).permutation(len(X))[:rows]]
    X = X[:, np.ptp(X[: len(X) // 2], axis=0) > 0]
    return np.split(X, [len(X) // 2, 3 * len(X) // 4])


def drawn_at(model, level, n_steps, n, seed):
    """Rows of one level."""
    return model.set_params(noise_level=level, n_steps=n_steps).sample(n, random_state=seed)


def judged(model, result, test):
    """The squared energy distances of every level (rows) and draw (columns) to the test rows."""
    return np.array([
        [energy_distance(drawn_at(model, level, n_steps, len(test), 1000 + k), test) for k in range(FINAL_DRAWS)]
        for level, n_steps in zip(result.levels, result.n_steps, strict=True)
    ])  # fmt: skip


def study(args, name, steps):
    """One table and one budget: whether the loss and the cost are met."""
    train, val, test = parts(f"{args.data}/density/{name}.csv.gz", args.rows)
    model = InterpolantDiffusion(
        dequantize="auto", max_iter=steps, n_steps=args.n_steps, preprocessing="standardize", random_state=0
    ).fit(train)
    began = time.process_time()
    result = model.tune_noise_level(val, n_draws=args.draws)
    seconds = time.process_time() - began
    began = time.process_time()
    for level, n_steps in zip(result.levels, result.n_steps, strict=True):
        for k in range(args.draws):
            drawn_at(model, level, n_steps, len(val), k)
    cost = seconds / (time.process_time() - began)
    distances = judged(model, result, test)
    best, chosen = distances.mean(1).argmin(), list(result.levels).index(result.chosen)
    extra = distances[chosen] - distances[best]
    loss, error = extra.mean(), extra.std(ddof=1) / FINAL_DRAWS**0.5
    met = loss <= max(LARGEST_LOSS, 2 * error)
    curve = " ".join(f"{d:.3f}" for d in distances.mean(1))
    taken = f"took {result.chosen:g}, best {result.levels[best]:g}, loss {loss:.4f} +- {error:.4f}"
    print(f"{name:10} {steps:5d} steps: {taken} {'met' if met else 'missed'}; cost {cost:.2f}", flush=True)
    print(f"    test distances {curve}", flush=True)
    return met, cost


def main():
    """Run all pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tables", nargs="+", default=["protein", "elevators", "wine", "airfoil", "concrete"])
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 1000])
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--n-steps", type=int, default=50)
    args = parser.parse_args()
    print(f"{args.rows} rows, {args.draws} draws, {args.n_steps} steps at levels up to 1")
    found = [study(args, name, steps) for name in args.tables for steps in args.steps]
    costs = [cost for _, cost in found]
    print(
        f"loss met in {sum(met for met, _ in found)} of {len(found)} pairs; cost {min(costs):.2f} to {max(costs):.2f},"
    )
    print(f"at most {LARGEST_COST}: {'met' if max(costs) <= LARGEST_COST else 'missed'}")


if __name__ == "__main__":
    main()
