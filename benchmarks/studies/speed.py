"""Speed of fit, score and sample beside the libraries whose users write the loop by hand, in one process.

    PYTHONPATH=peers python benchmarks/studies/speed.py --data PATH --threads 1 --rounds 7
    PYTHONPATH=peers python benchmarks/studies/speed.py --data PATH --only train score --threads 1 2

PATH holds density/*.csv.gz. The peers are torchcfm, flow_matching, zuko, torchdiffeq (pip install --target peers
--no-deps, and sklearn-si[bench]); a peer that is not installed is left out. Rounds are interleaved: in each round every
contender runs once, and a table shows medians over rounds, the smallest and the largest, and ratios of medians. On both
sides is the same network, the same batch and the same number of threads; accuracy is against a fine solution.

    train    steps a second: our fit, the loops of torchcfm's and flow_matching's examples, and the floor of the moment
             (the matrix products of a step alone)
    score    exact log-densities at 1e-3 nats: dopri5 and one VJP a column, zuko's exact trace, KernelDensity
    default  microseconds a row at the default ode_tol, true errors and how many the stated ones cover, with and without
             what fit measures of the model, beside dopri5 with autograd (of our own, its evaluations counted)
    densities  microseconds a row at the default ode_tol and in one pass, in double and single precision, beside
             torchdiffeq's dopri5 (its evaluations counted), zuko's NSF and MAF, KernelDensity (speed_densities.py)
    sample   rows at the sliced W2 of the exact flow: torchdiffeq's dopri5 at 1e-5, our steps, our distilled map
    quality  seconds to the test log-likelihood that zuko's NSF has after two minutes (protein)
    scaling  cost and memory as rows and columns grow
"""

import argparse
import copy
import dataclasses
import itertools
import resource
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from threadpoolctl import threadpool_limits
from torch import nn

import speed_densities
from likelihood import AT, at_error, contenders, log_normal, protein, standardized, trace_by_vjps, unit_probes
from sklearn_si import InterpolantFlow
from sklearn_si.metrics import sliced_wasserstein
from sklearn_si.networks import MLP
from sklearn_si.solvers import ODE_SOLVERS, time_grid
from sklearn_si.solvers import odeint as our_odeint
from sklearn_si.solvers._steps import combine, runge_kutta_step

try:
    import torchcfm.conditional_flow_matching as torchcfm
except ImportError:
    torchcfm = None
try:
    import flow_matching.path as flow_matching
    from flow_matching.path.scheduler import CondOTScheduler
except ImportError:
    flow_matching = None


def seconds(function):
    """Seconds of one call, and its result."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def interleaved(contenders, rounds):
    """Seconds of every contender in every round, after one round that warms up."""
    spent = {name: [] for name in contenders}
    for k in range(rounds + 1):
        for name, run in contenders.items():
            took, _ = seconds(run)
            if k:
                spent[name].append(took)
    return spent


def print_rates(spent, count, unit):
    """A row a contender: median rate, slowest and fastest."""
    for name, times in spent.items():
        rate, low, high = (count / t for t in (np.median(times), max(times), min(times)))
        print(f"    {name:<34}{rate:>12.1f} {unit}   [{low:.1f}, {high:.1f}]")


def verdict(what, value, target, *, at_most=False):
    """One line of a figure against what it should be."""
    met = value <= target if at_most else value >= target
    sign = "at most" if at_most else "at least"
    print(f"  -> {what}: {value:.2f} ({sign} {target:g}: {'met' if met else 'NOT met'})", flush=True)


# ----------------------------------------------------------------------------------------- train


class Plain(nn.Module):
    """The perceptron of the loops: (x, t) in one tensor."""

    def __init__(self, d, widths):
        super().__init__()
        sizes = [d + 1, *widths]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], d))

    def forward(self, x, t):
        """The velocity."""
        return self.layers(torch.cat([x, t[:, None]], 1))


def torchcfm_loop(X, widths, batch, steps):
    """As in torchcfm's examples: its own matcher, Adam, a batch of random rows a step."""
    model, rows = Plain(X.shape[1], widths), torch.as_tensor(X, dtype=torch.float32)
    optimizer, matcher = torch.optim.Adam(model.parameters()), torchcfm.ConditionalFlowMatcher(sigma=0.0)

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            x1 = rows[torch.randint(len(rows), (batch,))]
            x0 = torch.randn_like(x1)
            t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1)
            loss = torch.mean((model(xt, t) - ut) ** 2)
            loss.backward()
            optimizer.step()

    return run


def flow_matching_loop(X, widths, batch, steps):
    """As in flow_matching's examples: its own path, Adam, a batch of random rows a step."""
    model, rows = Plain(X.shape[1], widths), torch.as_tensor(X, dtype=torch.float32)
    optimizer, path = torch.optim.Adam(model.parameters()), flow_matching.AffineProbPath(CondOTScheduler())

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            x1 = rows[torch.randint(len(rows), (batch,))]
            x0 = torch.randn_like(x1)
            sample = path.sample(t=torch.rand(batch), x_0=x0, x_1=x1)
            loss = torch.pow(model(sample.x_t, sample.t) - sample.dx_t, 2).mean()
            loss.backward()
            optimizer.step()

    return run


def our_fit(X, widths, batch, steps, *, plain, bf16=False):
    """A whole fit of so many steps: scaling of the columns, batches, steps, averages, the grid of `sample`."""
    network = (lambda d, n_conditions: MLP(d, n_conditions, widths)) if plain else "mlp"
    flow = InterpolantFlow(
        network=network, hidden_layer_sizes=widths, batch_size=batch, max_iter=steps, preprocessing="standardize",
        early_stopping=False, bf16=bf16, random_state=0, device="cpu",
    )  # fmt: skip
    return lambda: flow.fit(X)


def products(d, widths, batch, steps):
    """The matrix products of a step, forward and backward, and nothing else."""
    sizes = [d + 1, *widths, d]
    values = [torch.randn(batch, size) for size in sizes]
    weights = [torch.randn(b, a) for a, b in itertools.pairwise(sizes)]

    def run():
        for _ in range(steps):
            for k, weight in enumerate(weights):
                values[k] @ weight.T
                values[k + 1].T @ values[k]
                if k:
                    values[k + 1] @ weight

    return run


def train(args):
    """Steps a second."""
    X = np.random.default_rng(0).normal(size=(20_000, 10))
    for widths, batch, steps, target in (((128,) * 3, 256, 300, 1.7), ((256,) * 3, 512, 100, 1.3)):
        runs = {"products alone (floor)": products(10, widths, batch, steps)}
        if torchcfm:
            runs["torchcfm loop, plain"] = torchcfm_loop(X, widths, batch, steps)
        if flow_matching:
            runs["flow_matching loop, plain"] = flow_matching_loop(X, widths, batch, steps)
        ours = {"ours, plain": {"plain": True}, "ours, default network": {"plain": False}}
        ours["ours, default network, bfloat16"] = {"plain": False, "bf16": True}
        for name, kind in ours.items():
            runs[name] = our_fit(X, widths, batch, steps + 1, **kind)
            runs[f"{name}, one step"] = our_fit(X, widths, batch, 1, **kind)
        print(f"  {len(widths)} x {widths[0]}, batch {batch}, d = 10")
        spent = interleaved(runs, args.rounds)
        for name in ours:  # what precedes and follows the steps is counted apart
            once = np.median(spent.pop(f"{name}, one step"))
            spent[name] = [took - once for took in spent[name]]
            print(f"    {name}: {1e3 * once:.0f} ms of a fit before and after its steps")
        print_rates(spent, steps, "steps/s")
        middle = {name: np.median(times) for name, times in spent.items()}
        own = middle["ours, plain"]
        if torchcfm:
            verdict("our plain perceptron over torchcfm's loop", middle["torchcfm loop, plain"] / own, target)
            cost = middle["ours, default network"] / middle["torchcfm loop, plain"]
            verdict("a step of our default network over that of the loop", cost, 1.3, at_most=True)
        if batch == 512:
            verdict("share of the floor", middle["products alone (floor)"] / own, 0.75)
        verdict(
            "a step of our default network over our plain one", middle["ours, default network"] / own, 1.3, at_most=True
        )


# ----------------------------------------------------------------------------------------- score


def mixed_tails(d, n=20_000, seed=0):
    """A random linear mix of d independent Student-t columns with 5 degrees of freedom, of variance one."""
    rng = np.random.default_rng(seed)
    return standardized(rng.standard_t(5, (n, d)) @ rng.normal(size=(d, d)))


def fitted(X, widths, steps=800, **params):
    """A flow on standardised columns."""
    settings = {"preprocessing": "standardize", "device": "cpu", "random_state": 0} | params
    return InterpolantFlow(hidden_layer_sizes=widths, max_iter=steps, **settings).fit(X)


def score(args):
    """Seconds for log-densities at a mean error of 1e-3 nats."""
    cases = {
        "d = 10, three layers": (mixed_tails(10), (128,) * 3, 5.0),
        "d = 43, two layers": (mixed_tails(43), (256,) * 2, 40.0),
    }
    for name, (X, widths, target) in cases.items():
        flow, rows = fitted(X[args.rows :], widths), X[: args.rows]
        reference = contenders(flow, rows, "float64")[2](1e-8)
        runs = {k: v for k, v in contenders(flow, rows, "float32")[0].items() if "our trace" not in k}
        runs = {k: v for k, v in runs.items() if "Hutchinson" not in k}
        print(f"  {name}: {args.rows} rows in single precision")
        errors = {k: float(np.abs(np.asarray(run(), np.float64) - reference).mean()) for k, run in runs.items()}
        spent = interleaved(runs, max(1, args.rounds // 2))
        points = {}
        for k, times in spent.items():
            took = float(np.median(times))
            print(f"    {k:<34}{took:>10.4f} s   mean error {errors[k]:.1e}")
            points.setdefault(k.rsplit(",", 1)[0], []).append((took, errors[k]))
        own = at_error(points["ours"], AT)[0]
        for family, goal in (("dopri5 autograd", target), ("zuko exact", 1.0)):
            verdict(f"cost of {family} over ours at {AT:g} nats", at_error(points[family], AT)[0] / own, goal)
    X = mixed_tails(10, n=52_000)
    X, rows = X[2000:], X[:2000]
    flow, kde = fitted(X, (128,) * 3), KernelDensity(bandwidth=0.3).fit(X)
    mixture = GaussianMixture(32, random_state=0).fit(X[:5000])
    spent = interleaved(
        {
            "KernelDensity, 50,000 rows": lambda: kde.score_samples(rows),
            "GaussianMixture, 32 components": lambda: mixture.score_samples(rows),
            "ours, double precision": lambda: flow.score_samples(rows),
            "ours, single precision": lambda: flow.score_samples(rows.astype(np.float32)),
        },
        max(1, args.rounds // 2),
    )
    print("  2,000 rows, d = 10")
    print_rates(spent, len(rows), "rows/s")
    middle = {name: np.median(times) for name, times in spent.items()}
    ratio = middle["KernelDensity, 50,000 rows"] / middle["ours, double precision"]
    verdict("cost of KernelDensity over ours, double precision", ratio, 1.0)


# --------------------------------------------------------------------------------------- default


def autograd_dopri5(f, x, tol):
    """Log-density in scaled units, d VJPs an evaluation, steps of all rows together; and the number of evaluations."""
    tableau, probes = ODE_SOLVERS["dopri5"], unit_probes(x)
    y, t, h, count = torch.cat([x, torch.zeros_like(x[:, :1])], 1), 1.0, -0.05, 0

    def slope(s, y):
        value, divergence = trace_by_vjps(f, torch.tensor(s, dtype=x.dtype), y[:, :-1], probes)
        return torch.cat([value, -divergence[:, None]], 1)

    first = slope(t, y)
    while t > 1e-12:
        h = max(h, -t)
        new, slopes = runge_kutta_step(tableau, slope, t, h, y, first)
        slopes.append(slope(t + h, new))
        count += 6
        error = h * combine(tableau.error, slopes) / (tol * (1 + torch.maximum(y.abs(), new.abs())))
        error = float(error.square().mean().sqrt())
        if error <= 1:
            t, y, first = t + h, new, slopes[-1]
        h *= min(5.0, max(0.2, 0.9 * (error + 1e-10) ** -0.2))
    return log_normal(y[:, :-1]) - y[:, -1], count + 1


def default(args):
    """Densities as users get them: the default tolerance, double precision."""
    for d in args.columns:
        X = standardized(make_moons(20_000, noise=0.07, random_state=0)[0]) if d == 2 else mixed_tails(d)
        rows, X = X[: 5 * args.rows], X[5 * args.rows :]
        flow = InterpolantFlow(max_iter=args.fit_steps, device="cpu", random_state=0).fit(X)
        at_default(args, flow, rows)


def at_default(args, flow, rows):
    """Price, errors and coverage of one model."""
    plain = copy.copy(flow)
    plain.model_ = dataclasses.replace(flow.model_, likelihood_calibration=None)
    true = copy.copy(plain).set_params(ode_tol=1e-7).score_samples(rows)
    model, few = flow.model_, rows[: args.rows]
    fields = copy.deepcopy(model.fields(np.float64, torch.device("cpu")))
    fields.velocity_network.requires_grad_(False)
    x, jacobian = torch.as_tensor(model.target_map.transform(few)), model.target_map.log_abs_det_jacobian(few)
    known = model.likelihood_calibration
    print(f"  d = {rows.shape[1]}, {type(flow.network_).__name__}; first level {known and known.start(1e-3)}")
    ours = {"measured": flow, "not measured": plain}
    theirs = {f"autograd dopri5, {tol:g}": tol for tol in (1e-3, 1e-4)}
    runs = {name: lambda m=m: m.score_samples(rows) for name, m in ours.items()}
    runs |= {name: lambda tol=tol: autograd_dopri5(fields.velocity, x, tol) for name, tol in theirs.items()}
    middle = {name: np.median(times) for name, times in interleaved(runs, args.rounds).items()}
    price = {name: 1e6 * took / len(few if name in theirs else rows) for name, took in middle.items()}
    for name, cost in price.items():
        line = f"    {name:<24}{cost:>8.0f} us a row, {cost / price['measured']:>6.2f} times ours"
        if name in theirs:
            value, count = runs[name]()
            off = np.abs(value.numpy() + jacobian - true[: len(few)])
            print(f"{line}   mean error {off.mean():.1e}   {count} evaluations", flush=True)
        else:
            value, error = ours[name].score_samples(rows, return_error=True)
            off = np.abs(value - true)
            print(f"{line}   mean error {off.mean():.1e}   covered {(off <= error + 1e-7).mean():.4f}", flush=True)


# ------------------------------------------------------------------------------------- densities


def densities(args):
    """What a row costs by every way to a log-density."""
    for d in args.columns:
        X = mixed_tails(d, n=speed_densities.KERNEL_ROWS + 5 * args.rows)
        rows, X = X[: 5 * args.rows], X[5 * args.rows :]
        flow = InterpolantFlow(max_iter=args.fit_steps, device="cpu", random_state=0).fit(X[:20_000])
        one_pass = copy.copy(flow)
        one_pass.distill(log_density=True, max_iter=args.distill_steps).set_params(solver="distilled")
        for dtype in (np.float64, np.float32):
            print(f"  d = {d}, {np.dtype(dtype).name}")
            found = speed_densities.contenders(flow, one_pass, X, rows, args.rows, dtype)
            speed_densities.report(found, args.rounds)


# ---------------------------------------------------------------------------------------- sample


@torch.no_grad()
def sample(args):
    """Seconds for rows, and their distance from held-out ones."""
    from torchdiffeq import odeint

    X = standardized(protein(args.data, 0)) if args.data else mixed_tails(10)
    half = len(X) // 2
    flow, held = fitted(X[:half], (128,) * 3, steps=3000, preprocessing="whiten"), X[half:]
    with torch.enable_grad():
        flow.distill(1)
    field = flow.network_
    n = args.samples
    rng = torch.Generator().manual_seed(0)

    def theirs(tol=1e-5):
        z = torch.randn((n, X.shape[1]), generator=rng)
        # unless told to step onto t = 1 it steps past it, where the field is not defined
        times, options = torch.tensor([0.0, 1.0]), {"step_t": torch.tensor([1.0])}
        return odeint(lambda t, x: field(t, x), z, times, rtol=tol, atol=tol, method="dopri5", options=options)[-1]

    def exact():
        z = torch.randn((n, X.shape[1]), generator=rng)
        return our_odeint(lambda t, x: field(t, x), z, time_grid(200, "logit"), "rk4")

    def ours(solver):
        return flow.set_params(solver=solver).sample(n, random_state=1)

    runs = {
        "torchdiffeq dopri5, 1e-5": theirs,
        f"ours, {flow.sampling_grid_[0]} steps of RK4": lambda: ours("auto"),
        "ours, distilled, one step": lambda: ours("distilled"),
    }
    print(f"  protein, {n} rows, 3 x 128; our times include the way back to data units")
    spent = interleaved(runs, args.rounds)
    print_rates(spent, n, "rows/s")
    back = flow.preprocessing_.inverse_transform
    targets = {"exact flow (200 steps)": exact, **runs}
    for name, run in targets.items():
        rows = run()
        rows = back(rows.double().numpy()) if torch.is_tensor(rows) else rows
        print(f"    {name:<34} sliced W2 to held-out rows {sliced_wasserstein(rows[:half], held):.4f}")
    print(f"    {'training rows':<34} sliced W2 to held-out rows {sliced_wasserstein(X[:half], held):.4f}")
    print(f"    report of distill: {dict(flow.distillation_report_)}")
    theirs_s, ours_s, distilled_s = (np.median(times) for times in spent.values())
    verdict("cost of torchdiffeq's dopri5 over our steps", theirs_s / ours_s, 5.0)
    verdict("cost of our steps over the distilled map", ours_s / distilled_s, 4.0)


# --------------------------------------------------------------------------------------- quality


def quality(args):
    """Our default in 6 s beside zuko's NSF in two minutes, on test rows of protein."""
    from density_peers import METHODS
    from density_sets import load

    for seed in range(args.seeds):
        split = load("protein", args.data, seed, None)
        took, (theirs, note) = seconds(
            lambda split=split, seed=seed: METHODS["nsf"](split.train, split.valid, 120, seed)
        )
        nsf = np.asarray(theirs(split.test)).mean()
        print(f"  seed {seed}: NSF {nsf:.3f} after {took:.0f} s ({note})")
        for budget in (6, 12, 24):
            took, (ours, _) = seconds(lambda s=split, b=budget, seed=seed: METHODS["ours"](s.train, s.valid, b, seed))
            value = np.asarray(ours(split.test)).mean()
            print(
                f"           ours {value:.3f} after {took:.1f} s: {'ahead' if value >= nsf else 'behind'}", flush=True
            )


# --------------------------------------------------------------------------------------- scaling


def peak():
    """Largest resident memory of the process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def costs_of(n, steps=3000):
    """Seconds of a step, of a scored and of a sampled row, with n training rows; and MiB of the rows themselves."""
    X = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32)
    settings = {"early_stopping": False, "batch_size": 512, "bf16": False, "ode_tol": 0.1}
    few, _ = seconds(lambda: fitted(X, (64, 64), 1, **settings))
    many, flow = seconds(lambda: fitted(X, (64, 64), steps + 1, **settings))
    scored, _ = seconds(lambda: flow.score_samples(X))
    sampled, _ = seconds(lambda: flow.sample(n))
    return (many - few) / steps, scored / n, sampled / n, X.nbytes / 2**20


def scaling(args):
    """Cost a step, a scored row and a sampled row as rows and columns grow."""
    print("  d = 10, two layers of 64, single precision, ode_tol = 0.1")
    names = ("rows", "ms a step", "us a scored row", "us a sampled row", "MiB of rows", "peak MiB")
    print("  " + "".join(f"{name:>{len(name) + 3}}" for name in names))
    costs = {}
    for n in args.sizes:
        step, row, drawn, size = costs[n] = costs_of(n)
        numbers = f"{1e3 * step:>12.2f}{1e6 * row:>18.1f}{1e6 * drawn:>19.2f}{size:>14.0f}{peak():>11.0f}"
        print(f"  {n:>7}{numbers}", flush=True)
    first, last = costs[args.sizes[0]], costs[args.sizes[-1]]
    verdict("cost of a step at the most rows over that at the fewest", last[0] / first[0], 1.2, at_most=True)
    verdict("cost of a scored row, likewise", last[1] / first[1], 1.2, at_most=True)
    by_columns = {}
    for d in (2, 10, 43, 100):
        X = mixed_tails(d)[:5000].astype(np.float32)
        flow = fitted(X, (256, 256), 300, ode_tol=1e-2)
        flow.score_samples(X[:100])
        took, _ = seconds(lambda X=X, flow=flow: flow.score_samples(X[:2000]))
        by_columns[d] = took / 2000
        print(f"  d = {d:<5} two layers of 256: {1e6 * by_columns[d]:.0f} us a scored row")
    verdict("a scored row at d = 100 over d = 10, closed trace", by_columns[100] / by_columns[10], 4.0, at_most=True)
    if args.picture:
        draw(costs, by_columns, args.picture)


def draw(costs, by_columns, path):
    """A picture of the costs, in microseconds a row."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    n = list(costs)
    left.loglog(n, [1e6 * costs[k][1] for k in n], "o-", label="score, a row")
    left.loglog(n, [1e6 * costs[k][2] for k in n], "s-", label="sample, a row")
    left.loglog(n, [1e6 * costs[k][0] / 512 for k in n], "^-", label="gradient step, a row of the batch")
    left.set(xlabel="training rows, scored rows, sampled rows", ylabel="microseconds", title="10 columns, 2 x 64")
    left.set_ylim(1, 1000)
    left.legend(loc="upper right")
    right.loglog(list(by_columns), [1e6 * v for v in by_columns.values()], "o-")
    right.set(xlabel="columns", ylabel="microseconds a scored row", title="exact trace of two layers of 256")
    right.set_ylim(100, 10_000)
    figure.savefig(path, dpi=110)


PARTS = {
    "train": train, "score": score, "default": default, "densities": densities, "sample": sample, "quality": quality,
    "scaling": scaling,
}  # fmt: skip


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder that holds density/*.csv.gz; quality needs it")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=200, help="of score")
    parser.add_argument("--columns", type=int, nargs="*", default=[2, 5, 10, 20, 43], help="of default and densities")
    parser.add_argument("--fit-steps", type=int, default=6000, help="of default")
    parser.add_argument("--distill-steps", type=int, default=4000, help="of densities")
    parser.add_argument("--samples", type=int, default=50_000, help="of sample")
    parser.add_argument("--seeds", type=int, default=1, help="of quality")
    parser.add_argument("--picture", help="of scaling: a file to draw the costs to")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000], help="of scaling")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for threads in args.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            for name in args.only:
                print(f"\n{name}, {threads} thread(s)", flush=True)
                PARTS[name](args)


if __name__ == "__main__":
    main()
