"""Cost of a log-density against its error, beside solvers that differentiate by autograd; and densities of bridges.

    PYTHONPATH=peers OMP_NUM_THREADS=1 python benchmarks/studies/likelihood.py cost --data PATH --seeds 1 --rows 200
    OMP_NUM_THREADS=1 python benchmarks/studies/likelihood.py bridge --data PATH --seeds 2 --rows 1000

PATH holds density/*.csv.gz, without header. The peers are torchdiffeq and zuko (pip install --target peers --no-deps).

cost: one fitted velocity, the same rows and one thread for all; repeats are interleaved, seconds are medians. A forward
is one evaluation of the velocity on the same rows, in the same dtype. Errors are in nats, relative to `score_samples`
with ode_tol=1e-8 in float64, which is itself held against torchdiffeq at 1e-9 with autograd on a few rows.

bridge: held-out log-likelihood of X1 after fit(X0, X1), by the density of the target and by that of transported rows,
and after fit(X1).
"""

import argparse
import copy
import itertools
import time
import warnings

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, make_moons
from sklearn.model_selection import train_test_split

from sklearn_si import InterpolantFlow

OURS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
THEIRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# cost of dopri5 over ours at this mean error, and what it should be at least
AT, TARGETS = 1e-3, {9: 2.5, 43: 20.0}
BREAST = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "symmetry", "fractal dimension"]


def protein(folder, seed, rows=20_000):
    """Rows of protein.csv.gz without its 8th column."""
    X = pd.read_csv(f"{folder}/density/protein.csv.gz", header=None).sample(rows, random_state=seed)
    return X.drop(columns=7).to_numpy(float)


def heavy_tails(seed, rows=20_000, d=43):
    """A random linear mix of d independent Student-t columns with 5 degrees of freedom."""
    rng = np.random.default_rng(seed)
    return rng.standard_t(5, (rows, d)) @ rng.normal(size=(d, d)) / d**0.5


def standardized(X):
    """Columns of mean zero and deviation one."""
    return (X - X.mean(0)) / X.std(0)


def tables(folder, seed):
    """Name, rows and hidden layers of each set."""
    yield "two moons", standardized(make_moons(20_000, noise=0.07, random_state=seed)[0]), (128, 128, 128)
    yield "protein", standardized(protein(folder, seed)), (128, 128, 128)
    yield "mixed Student-t", standardized(heavy_tails(seed)), (256, 256)


def log_normal(x):
    """Log N(x; 0, I), a row."""
    return -0.5 * (x.square() + np.log(2 * np.pi)).sum(1)


def trace_by_vjps(f, t, x, probes):
    """f(t, x) and the mean of v . (df/dx)^T v over probes, one VJP each; with the d unit vectors, d times the trace."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(t, x)
    total = 0.0
    for i, v in enumerate(probes):
        total = total + (torch.autograd.grad(value, x, v, retain_graph=i + 1 < len(probes))[0] * v).sum(1)
    return value.detach(), total / len(probes)


def unit_probes(x):
    """The d unit vectors times sqrt(d), for each row: the mean over them is the exact trace."""
    d = x.shape[1]
    return list(d**0.5 * torch.eye(d, dtype=x.dtype)[:, None, :].expand(d, *x.shape))


def random_probes(x, n, seed=0):
    """Signs at random, held during a solve."""
    signs = torch.randint(2, (n, *x.shape), generator=torch.Generator().manual_seed(seed))
    return list((2 * signs - 1).to(x.dtype))


def dopri5(trace, x, tol):
    """Log-density in scaled units by torchdiffeq: steps of all rows together, x and the integral in one state."""
    from torchdiffeq import odeint

    times = torch.tensor([1.0, 0.0], dtype=x.dtype)
    # unless told to step onto t = 0 it steps past it, where the field is not defined
    options = {"rtol": tol, "atol": tol, "options": {"step_t": times[1:]}}
    x0, integral = odeint(lambda t, y: trace(t, y[0]), (x, torch.zeros_like(x[:, 0])), times, **options)
    return log_normal(x0[-1]) + integral[-1]


def zuko_exact(f, x, tol):
    """Log-density in scaled units by zuko, whose d VJPs are one batched call."""
    from zuko.transforms import FreeFormJacobianTransform

    x0, ladj = FreeFormJacobianTransform(f, 1.0, 0.0, atol=tol, rtol=tol, exact=True).call_and_ladj(x)
    return log_normal(x0) + ladj


def contenders(flow, X, dtype):
    """Name -> function that returns log-densities in scaled units of X, and the function of one forward."""
    X = X.astype(dtype)
    fields = copy.deepcopy(flow.model_.fields(X.dtype, torch.device("cpu")))
    # parameters that ask for no gradient: autograd has less to record
    fields.velocity_network.requires_grad_(False)
    x = torch.as_tensor(flow.model_.target_map.transform(X), dtype=getattr(torch, dtype))
    f, jacobian = fields.velocity, flow.preprocessing_.log_abs_det_jacobian(X)

    def ours(tol):
        return copy.copy(flow).set_params(ode_tol=tol).score_samples(X) - jacobian

    def by_vjps(tol, probes):
        return dopri5(lambda t, y: trace_by_vjps(f, t, y, probes), x, tol)

    runs = {f"ours, ode_tol={tol:g}": lambda tol=tol: ours(tol) for tol in OURS}
    for tol in THEIRS:
        runs[f"dopri5 autograd, {tol:g}"] = lambda tol=tol: by_vjps(tol, unit_probes(x))
    for tol in THEIRS:
        runs[f"zuko exact, {tol:g}"] = lambda tol=tol: zuko_exact(f, x, tol)
    for tol in THEIRS:
        runs[f"dopri5, our trace, {tol:g}"] = lambda tol=tol: dopri5(fields.velocity_and_divergence, x, tol)
    for n in (1, 16):
        runs[f"dopri5 Hutchinson {n}, 0.001"] = lambda n=n: by_vjps(1e-3, random_probes(x, n))
    return runs, lambda: f(torch.tensor(0.5, dtype=x.dtype), x), ours, by_vjps, x


def seconds(function, *, least=0.0):
    """Seconds of one call (the mean of as many as fill `least`), and the last result."""
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < least:
        result, calls = function(), calls + 1
    return (time.perf_counter() - began) / calls, result


def at_error(points, error):
    """Seconds at a mean error, by log-log interpolation; the cheapest that is better if none is worse; else nan."""
    points = sorted(points)
    for (c0, e0), (c1, e1) in itertools.pairwise(points):
        if e0 > error >= e1:
            share = (np.log(e0) - np.log(error)) / (np.log(e0) - np.log(e1))
            return float(np.exp((1 - share) * np.log(c0) + share * np.log(c1))), ""
    better = [c for c, e in points if e <= error]
    return (min(better), " (its cheapest, already better)") if better else (float("nan"), " (not reached)")


@torch.no_grad()
def measure(flow, X, dtype, reference, repeats):
    """Print the table of one dtype; return the points (seconds, mean error) of each family."""
    runs, forward, *_ = contenders(flow, X, dtype)
    spent, forwards, values = {name: [] for name in runs}, [], {}
    for function in (forward, runs[f"ours, ode_tol={OURS[0]:g}"]):
        function()  # warm up
    for _ in range(repeats):
        for name, run in runs.items():
            forwards.append(seconds(forward, least=0.005)[0])
            took, value = seconds(run)
            spent[name].append(took)
            values[name] = np.asarray(value, np.float64)
    one = float(np.median(forwards))
    print(f"  {dtype}: one forward {1e3 * one:.3f} ms")
    print(f"    {'':<28}{'seconds':>10}{'forwards':>10}{'mean error':>12}{'worst':>10}")
    points = {}
    for name, value in values.items():
        took, error = float(np.median(spent[name])), np.abs(value - reference)
        print(f"    {name:<28}{took:>10.4f}{took / one:>10.0f}{error.mean():>12.2e}{error.max():>10.2e}", flush=True)
        points.setdefault(name.rsplit(",", 1)[0], []).append((took, error.mean()))
    return points


def ratios(points):
    """Print the costs at equal errors and their ratios; return the ratio of dopri5 with autograd at the error AT."""
    for error in (AT, AT / 10):
        own, note = at_error(points["ours"], error)
        print(f"    at mean error {error:g}: ours {own:.4f} s{note}")
        for family in ("dopri5 autograd", "zuko exact", "dopri5, our trace"):
            cost, note = at_error(points[family], error)
            print(f"      {family:<18} {cost:.4f} s{note}: {cost / own:.2f} times ours")
    return at_error(points["dopri5 autograd"], AT)[0] / at_error(points["ours"], AT)[0]


@torch.no_grad()
def cost(args):
    """Fit, measure and print, for each seed and set."""
    verdicts = {}
    for seed in range(args.seeds):
        for name, table, sizes in tables(args.data, seed):
            if args.d and table.shape[1] not in args.d:
                continue
            X, X_test = train_test_split(table, test_size=args.rows, random_state=seed)
            settings = {"hidden_layer_sizes": sizes, "max_iter": args.max_iter, "random_state": seed}
            flow = InterpolantFlow(preprocessing="standardize", device="cpu", **settings)
            with torch.enable_grad():
                took, flow = seconds(lambda flow=flow, X=X: flow.fit(X))
            d = X.shape[1]
            print(f"\nseed {seed}  {name}: d={d}, {len(X)} rows, layers {sizes}, {flow.n_iter_} steps in {took:.0f} s")
            reference = contenders(flow, X_test, "float64")[2](1e-8)
            _, _, _, by_vjps, x = contenders(flow, X_test[:5], "float64")
            gap = np.abs(by_vjps(1e-9, unit_probes(x)).numpy() - reference[:5]).max()
            print(f"  reference: within {gap:.1e} of torchdiffeq at 1e-9 with autograd on 5 rows", flush=True)
            for dtype in ("float64", "float32"):
                points = measure(flow, X_test, dtype, reference, args.repeats)
                verdicts.setdefault((d, dtype), []).append(ratios(points))
    print(
        f"\nCost of dopri5 with autograd over ours at mean error {AT:g}, {args.rows} rows, seeds {args.seeds}, median:"
    )
    for (d, dtype), values in verdicts.items():
        ratio, target = float(np.median(values)), TARGETS.get(d)
        verdict = "" if target is None else f"  target {target:g}: {'met' if ratio >= target else 'NOT met'}"
        print(f"  d={d:<4}{dtype:<9}{ratio:8.2f}{verdict}")


def bridge_tables(folder, seed):
    """Name, X0 and X1 of each bridge."""
    data = load_breast_cancer(as_frame=True)
    X = standardized(data.data[[f"mean {name}" for name in BREAST]].to_numpy())
    yield "breast cancer, malignant -> benign", X[data.target == 0], X[data.target == 1]
    X = standardized(protein(folder, seed))
    low = X[:, -1] <= np.median(X[:, -1])
    yield "protein, below -> above the median of the last column", X[low, :-1], X[~low, :-1]


def bridge(args):
    """Print the held-out log-likelihoods of X1 and their differences."""
    settings = {"max_iter": args.max_iter if args.seconds is None else "auto", "device": "cpu"}
    gaps = {}
    for seed in range(args.seeds):
        for name, X0, X1 in bridge_tables(args.data, seed):
            X0_train = train_test_split(X0, test_size=0.3, random_state=seed)[0]
            X1_train, X1_test = train_test_split(X1, test_size=0.3, random_state=seed)
            X1_test = X1_test[: args.rows]

            def fitted(*tables, seed=seed, **densities):
                params = {**settings, "max_time": args.seconds, "random_state": seed, **densities}
                return InterpolantFlow(**params).fit(*tables)

            one = fitted(X1_train).score_samples(X1_test)
            print(f"seed {seed}  {name}: {len(X0_train)} -> {len(X1_train)} rows, {len(X1_test)} held out")
            print(f"    fit(X1)                    {one.mean():8.3f}")
            for target_density in ("flow", "transport"):
                began = time.perf_counter()
                two = fitted(X0_train, X1_train, target_density=target_density).score_samples(X1_test)
                took, gap = time.perf_counter() - began, two - one
                gaps.setdefault((name, target_density), []).append(gap.mean())
                error = gap.std() / len(gap) ** 0.5
                print(
                    f"    bridge, {target_density:<18} {two.mean():8.3f}   bridge - fit(X1) {gap.mean():+.3f} "
                    f"+- {error:.3f} (over rows)   {took:.0f} s",
                    flush=True,
                )
    print(f"\nBridge minus one sample, nats a row, mean over {args.seeds} seeds (target: no worse than -0.1)")
    for (name, target_density), values in gaps.items():
        mean = np.mean(values)
        each = " ".join(f"{v:+.3f}" for v in values)
        print(f"  {name}, {target_density}: {mean:+.3f} ({each}): {'met' if mean >= -0.1 else 'NOT met'}")


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["cost", "bridge"], default="cost")
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=200, help="held-out rows")
    parser.add_argument("--max-iter", type=int, default=800)
    parser.add_argument("--seconds", type=float, help="of bridge: of each fit, in place of --max-iter")
    parser.add_argument("--d", type=int, nargs="*", help="of cost: the sets with so many columns (2, 9, 43) only")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    bridge(args) if args.what == "bridge" else cost(args)


if __name__ == "__main__":
    main()
