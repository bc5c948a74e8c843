"""The experiments of 2303.08797, sec. 7.1 and 7.2, and its published notebook, with this package.

    python benchmarks/studies/paper_b.py notebook                # authors' settings against the default
    python benchmarks/studies/paper_b.py checkerboard --seeds 3  # gamma x noise level, 2-D
    python benchmarks/studies/paper_b.py mixture --seeds 3       # fields and gamma x noise level, 128-D
    python benchmarks/studies/paper_b.py claims --records FILE   # each claim with its error

`--steps` (gradient steps) fixes all figures but those of `notebook` by the seeds; `--budget` (seconds a fit) does not.
"""

import argparse
import itertools
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import nn

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.exceptions import IntegrationError

LOG_DENSITY = -math.log(32)  # of the checkerboard, on its eight squares
GAMMAS = (None, "brownian", "quadratic", "sine-squared")
FIELDS = ("b+eta", "b+s", "v+eta", "v+s")


def checkerboard(rng, n):
    """Rows uniform on the eight squares of side 2 of [-4, 4]^2."""
    x1 = rng.uniform(-2, 2, n)
    x2 = rng.uniform(0, 1, n) - 2 * rng.integers(0, 2, n) + np.floor(x1) % 2
    return 2 * np.column_stack([x1, x2])


def exact_kl(log_density):
    """KL(checkerboard || model) and its standard error from the model's log-density at rows of the target."""
    gap = LOG_DENSITY - log_density
    return gap.mean(), gap.std() / math.sqrt(len(gap))


# ---------------------------------------------------------------- the authors' notebook, in plain torch


def notebook_network():
    widths = [3, 256, 256, 256, 256]
    hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(256, 2))


def train_notebook(steps, seed):
    """Learn b of x_t = (1 - t) x0 + t x1 on fresh triples (t, x0, x1)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = notebook_network()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1500, gamma=0.4)
    for _ in range(steps):
        t, x0, x1 = (
            torch.from_numpy(a.astype(np.float32))
            for a in (rng.uniform(size=(2000, 1)), rng.normal(size=(2000, 2)), checkerboard(rng, 2000))
        )
        b = network(torch.cat([t, (1 - t) * x0 + t * x1], 1))
        loss = (0.5 * b**2 - b * (x1 - x0)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def velocity_and_divergence(network, t, x):
    """The velocity and its exact divergence, by one forward derivative a feature."""

    def velocity(x):
        return network(torch.cat([x.new_full((len(x), 1), t), x], 1))

    divergence = 0
    for k in range(x.shape[1]):
        direction = torch.zeros_like(x)
        direction[:, k] = 1
        b, slope = torch.func.jvp(velocity, (x,), (direction,))
        divergence = divergence + slope[:, k]
    return b, divergence


@torch.no_grad()
def rk4_log_density(network, x, n_steps):
    """Log rho_1(x) = log N(X_0; 0, I) - int_0^1 div b dt along the ODE, by RK4 from t = 1 to 0."""
    h, integral = 1 / n_steps, torch.zeros(len(x), dtype=x.dtype)
    for k in range(n_steps):
        t = 1 - k * h
        b1, d1 = velocity_and_divergence(network, t, x)
        b2, d2 = velocity_and_divergence(network, t - h / 2, x - h / 2 * b1)
        b3, d3 = velocity_and_divergence(network, t - h / 2, x - h / 2 * b2)
        b4, d4 = velocity_and_divergence(network, t - h, x - h * b3)
        x = x - h / 6 * (b1 + 2 * b2 + 2 * b3 + b4)
        integral = integral + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    base = -0.5 * (x**2).sum(1) - math.log(2 * math.pi)
    return (base - integral).double().numpy()


def timed(function, *args):
    """The value, the wall time and the processor time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function(*args)
    return value, time.perf_counter() - wall, time.process_time() - cpu


def notebook_seed(args, seed):
    """Rows (model, steps, wall s, cpu s, KL, standard error) of one seed."""
    rng = np.random.default_rng([seed, 1])
    X, test = checkerboard(rng, args.rows), checkerboard(rng, args.test_rows)
    network, wall, cpu = timed(train_notebook, args.steps or 7000, seed)
    x = torch.from_numpy(test.astype(np.float32))
    theirs, coarse = (exact_kl(rk4_log_density(network, x, n)) for n in (args.ode_steps, args.ode_steps // 2))
    rows = [("notebook", args.steps or 7000, wall, cpu, *theirs)]
    print_row(rows[0])
    print(f"  (RK4: {args.ode_steps} steps; with half of them the KL is {coarse[0]:.4f})", flush=True)
    caps = {"default": {}, "default, max_iter=10**6": {"max_iter": 10**6}}
    for name, changes in list(caps.items())[: 2 if args.uncapped else 1]:
        flow = InterpolantFlow(max_time=wall / 4, random_state=seed, **changes)
        flow, wall_ours, cpu_ours = timed(flow.fit, X)
        ours = exact_kl(flow.set_params(ode_tol=1e-4).score_samples(test))
        rows.append((name, flow.n_iter_, wall_ours, cpu_ours, *ours))
        print_row(rows[-1])
    return rows


def print_row(row):
    name, steps, wall, cpu, kl, error = row
    print(f"{name:26} {steps:6d} {wall:8.1f} {cpu:8.1f} {kl:8.4f} +- {error:.4f}", flush=True)


def notebook(args):
    """The published checkerboard settings against InterpolantFlow().fit(X) at a quarter of their wall time."""
    print(f"Checkerboard; exact KL(target || ODE) on {args.test_rows} fresh rows; default: fit of {args.rows} rows.")
    print(f"{'model':26} {'steps':>6} {'wall s':>8} {'cpu s':>8} {'KL':>8}    s.e.")
    results = [notebook_seed(args, seed) for seed in range(args.seeds)]
    for k, (name, *_) in enumerate(results[0][1:], 1):
        wall = np.median([rows[k][2] / rows[0][2] for rows in results])
        ratio = np.median([rows[k][4] / rows[0][4] for rows in results])
        verdict = "seen" if ratio < 1 and wall <= 0.26 else "not seen"
        print(f"{name}: wall time x {wall:.3f}, KL x {ratio:.3f} of the notebook's")
        print(f"lower KL in a quarter of the wall time: {verdict}")


# ---------------------------------------------------------------- tables and claims


def fit_bridge(X0, X1, gamma, fields, args, seed):
    """A bridge from normal rows: a flow without latent noise, else a diffusion; float32, which halves the sampling."""
    kind = InterpolantFlow if gamma is None else InterpolantDiffusion
    model = kind(
        gamma=gamma,
        fields=fields,
        preprocessing=None if args.raw_units else "auto",
        base_density="standard_normal",
        noise_schedule=args.noise_schedule,
        hidden_layer_sizes=args.hidden or "auto",
        max_iter=args.steps or 3000,
        max_time=args.budget,
        random_state=seed,
    )
    model, wall, _ = timed(model.fit, X0.astype(np.float32), X1.astype(np.float32))
    scale = 1.0 if args.raw_units else float(np.mean(model.preprocessing_.scale))
    print(f"seed {seed} {gamma} {fields}: {model.n_iter_} steps, {wall:.0f} s, scale {scale:.3g}", file=sys.stderr)
    return model


def sample_at(model, level, args, seed):
    """Rows of the model at one noise level, or None where the solver left the finite numbers."""
    model.set_params(noise_level=level, n_steps=args.sde_steps if level > 0 else args.ode_steps)
    try:
        return model.sample(args.samples, random_state=seed)
    except IntegrationError as error:
        print(f"noise level {level:g}: {error}", file=sys.stderr)
        return None


def cell(values):
    """The median over seeds and half their range."""
    if not values:
        return f"{'-':>15}"
    return f"{np.median(values):8.4f} +-{(max(values) - min(values)) / 2:5.3f}"


def print_table(table, columns):
    """One line a row of {row: {column: values over seeds}}."""
    width = max(map(len, table))
    print(" " * width, *(f"{c if isinstance(c, str) else f'noise {c:g}':>15}" for c in columns))
    for name, row in table.items():
        print(f"{name:{width}}", *(cell(row.get(c, [])) for c in columns))


def best_level(row, levels):
    return min((level for level in levels if level in row), key=lambda level: np.median(row[level]))


def print_claim(claim, comparisons):
    """Seen if each (what, smaller, larger) holds for the medians; with the share of seeds in which it does."""
    seen = all(np.median(small) < np.median(large) for _, small, large in comparisons)
    print(f"{claim}: {'seen' if seen else 'not seen'}")
    for what, small, large in comparisons:
        count = sum(a < b for a, b in zip(small, large, strict=True))
        print(
            f"    {what}: {np.median(small):.4f} against {np.median(large):.4f}, lower in {count} of {len(small)} seeds"
        )


def print_interior(table, names, levels):
    """Whether the best noise level of each row is neither the first (the ODE) nor the last."""
    best = {name: best_level(table[name], levels) for name in names}
    seen = all(levels[0] < level < levels[-1] for level in best.values())
    print(f"an interior best noise level: {'seen' if seen else 'not seen'}")
    for name, level in best.items():
        ends = ", ".join(f"{np.median(table[name][e]):.4f} at {e:g}" for e in (levels[0], levels[-1]))
        print(f"    {name}: best {np.median(table[name][level]):.4f} at {level:g}; {ends}")


# ---------------------------------------------------------------- sec. 7.1: the checkerboard


def histogram_kl(X, side=0.25):
    """KL(target || model) between the masses of the target's cells: a lower bound of the KL of the densities.

    The cells divide the squares, so that the target's masses are exact; a model's cell of count c out of n has the
    mass (c + 1/2) / (n + (cells + 1) / 2).
    """
    if X is None:
        return math.inf
    edges = np.arange(-4, 4 + side / 2, side)
    counts = np.histogram2d(X[:, 0], X[:, 1], bins=(edges, edges))[0]
    square = np.floor((edges[:-1] + side / 2) / 2).astype(int)
    inside = counts[(square[:, None] + square) % 2 == 0]
    mass = (inside + 0.5) / (len(X) + 0.5 * (len(inside) + 1))
    return -math.log(len(inside)) - np.log(mass).mean()


def checkerboard_seed(args, seed, table):
    rng = np.random.default_rng([seed, 1])
    X0, X1 = rng.normal(size=(args.rows, 2)), checkerboard(rng, args.rows)
    test = checkerboard(rng, args.test_rows)
    floor = table.setdefault("true samples", {})
    for level in args.noise_levels:
        floor.setdefault(level, []).append(histogram_kl(checkerboard(rng, args.samples)))
    for gamma in GAMMAS:
        model = fit_bridge(X0, X1, gamma, "auto", args, seed)
        row = table.setdefault(f"gamma {gamma}", {})
        row.setdefault("exact ODE", []).append(exact_kl(model.set_params(noise_level=0.0).score_samples(test))[0])
        for level in args.noise_levels[: 1 if gamma is None else None]:
            row.setdefault(level, []).append(histogram_kl(sample_at(model, level, args, seed)))


def checkerboard_table(args):
    """KL(target || model) by gamma and noise level, from N(0, I) rows to the checkerboard."""
    print(f"Checkerboard, KL(target || model), median and half range over {args.seeds} seeds. 'exact ODE': by")
    print(f"score_samples on {args.test_rows} rows; 'noise': masses of cells of side 0.25, {args.samples} samples.")
    table = {}
    for seed in range(args.seeds):
        checkerboard_seed(args, seed, table)
    print_table(table, ["exact ODE", *args.noise_levels])
    names = [f"gamma {gamma}" for gamma in GAMMAS[1:]]
    zero, *positive = args.noise_levels
    print_interior(table, names, args.noise_levels)
    best = {name: best_level(table[name], positive) for name in names}
    print_claim(
        "the SDE at its best level better than the ODE",
        [(f"{n}, level {best[n]:g}", table[n][best[n]], table[n][zero]) for n in names],
    )
    brownian, others = table["gamma brownian"], [n for n in table if n.startswith("gamma") and "brownian" not in n]
    print_claim(
        "brownian gamma helps the ODE (exact KL)",
        [(f"brownian against {n}", brownian["exact ODE"], table[n]["exact ODE"]) for n in others],
    )
    print_claim(
        "brownian gamma helps the ODE (cell masses)",
        [(f"brownian against {n}", brownian[zero], table[n][zero]) for n in others],
    )


# ---------------------------------------------------------------- sec. 7.2: the mixture


def mixture_problem(rng, d):
    """Means and Cholesky factors of five modes: m = 7.5 N(0, I), C = W'W / d + I."""
    w = rng.normal(size=(5, d, d))
    return 7.5 * rng.normal(size=(5, d)), np.linalg.cholesky(np.swapaxes(w, 1, 2) @ w / d + np.eye(d))


def sample_modes(rng, n, means, factors):
    X = rng.normal(size=(n, means.shape[1]))
    modes = rng.integers(0, len(means), n)
    for k, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        X[modes == k] = mean + X[modes == k] @ factor.T
    return X


def scott_kde(X, points, spacing=0.02):
    """A Gaussian kernel density with Scott's covariance n^(-1/3) cov(X) in two dimensions, on a fine grid.

    In whitened coordinates the kernel is round and eight cells wide at 50,000 rows, so binning costs nothing seen.
    """
    mean, factor = X.mean(0), np.linalg.cholesky(np.cov(X.T))
    u, v = (np.linalg.solve(factor, (rows - mean).T).T for rows in (X, points))
    low = np.minimum(u.min(0), v.min(0)) - 1
    shape = np.ceil((np.maximum(u.max(0), v.max(0)) + 1 - low) / spacing).astype(int)
    if shape.max() > 20_000:
        return np.zeros(len(points))
    counts = np.histogram2d(*u.T, bins=shape, range=np.column_stack([low, low + spacing * shape]))[0]
    smooth = gaussian_filter(counts, len(X) ** (-1 / 6) / spacing, mode="constant", truncate=8)
    density = smooth / (len(X) * spacing**2 * np.prod(np.diag(factor)))
    return map_coordinates(density, ((v - low) / spacing - 0.5).T, order=1)


def projected_kl(points, reference, X):
    """Mean of -log u + u - 1, u = rho_hat / rho_1 of the first two coordinates at rows of rho_1: no term is negative.

    u is kept above 1e-12, the density of a point that no sample is near.
    """
    if X is None:
        return math.inf
    u = np.maximum(scott_kde(X[:, :2], points) / reference, 1e-12)
    return (u - 1 - np.log(u)).mean()


def mixture_seed(args, seed, table):
    rng = np.random.default_rng([seed, 2])
    problem = mixture_problem(rng, args.features)
    X0, X1 = rng.normal(size=(args.rows, args.features)), sample_modes(rng, args.rows, *problem)
    points, first, second = (sample_modes(rng, args.samples, *problem)[:, :2] for _ in range(3))
    reference = scott_kde(first, points)
    table.setdefault("true samples", {}).setdefault(args.noise_levels[0], []).append(
        projected_kl(points, reference, second)
    )
    cases = [("brownian", fields) for fields in FIELDS] + [(gamma, "auto") for gamma in GAMMAS if gamma != "brownian"]
    for gamma, fields in cases:
        model = fit_bridge(X0, X1, gamma, fields, args, seed)
        row = table.setdefault(f"{gamma} {fields}", {})
        for level in args.noise_levels[: 1 if gamma is None else None]:
            X = sample_at(model, level, args, seed)
            row.setdefault(level, []).append(projected_kl(points, reference, X))


def mixture_table(args):
    """Projected KL by learned fields, gamma and noise level, from N(0, I) rows to a mixture of five modes."""
    print(f"Mixture in {args.features} features, KL of the first two, median and half range over {args.seeds} seeds;")
    print(f"kernel densities (Scott) of {args.samples} samples at as many fresh points, non-negative control variate.")
    table = {}
    for seed in range(args.seeds):
        mixture_seed(args, seed, table)
    print_table(table, args.noise_levels)
    rows = {fields: table[f"brownian {fields}"] for fields in FIELDS}
    zero, *positive = args.noise_levels
    print_interior(rows, FIELDS, args.noise_levels)

    def compare(pairs):
        at_best = [
            (
                f"{a} against {b}, best levels",
                rows[a][best_level(rows[a], positive)],
                rows[b][best_level(rows[b], positive)],
            )
            for a, b in pairs
        ]
        return [*at_best, *((f"{a} against {b}, ODE", rows[a][zero], rows[b][zero]) for a, b in pairs)]

    print_claim("b better than v", compare([("b+eta", "v+eta"), ("b+s", "v+s")]))
    print_claim("eta better than s", compare([("b+eta", "b+s"), ("v+eta", "v+s")]))
    brownian = rows["b+eta"][zero]
    others = [n for n in table if n.endswith("auto")]
    print_claim("brownian gamma helps the ODE", [(f"brownian against {n}", brownian, table[n][zero]) for n in others])


# ---------------------------------------------------------------- each claim, with its error


# Two-sided 95 % points of Student's t, by the number of seeds less one.
T_POINTS = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def claims_pair(args, seed, steps):
    """KL of the checkerboard and of the mixture after so many steps, by target, fields and level."""
    rng, found = np.random.default_rng([seed, 3]), {}
    problem = mixture_problem(rng, args.features)
    modes = sample_modes(rng, args.rows, *problem)
    points, first = (sample_modes(rng, args.samples, *problem)[:, :2] for _ in range(2))
    reference = scott_kde(first, points)
    targets = {
        "mixture": (modes, lambda X: projected_kl(points, reference, X), FIELDS),
        "checkerboard": (checkerboard(rng, args.rows), histogram_kl, ("b+eta",)),
    }
    args.steps = steps
    for target, (X1, distance, all_fields) in targets.items():
        for fields in all_fields:
            model = fit_bridge(rng.normal(size=X1.shape), X1, "brownian", fields, args, seed)
            for level in args.noise_levels:
                found[f"{target} {fields} {level:g}"] = distance(sample_at(model, level, args, seed))
    return found


def known_records(path):
    """What a file of records holds, by seed and steps."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(record["seed"], record["steps"]): record for record in map(json.loads, lines)}


def claims(args):
    """Each claim for each budget: the mean of paired differences over seeds with its 95 % interval."""
    path = pathlib.Path(args.records)
    for steps, seed in itertools.product(args.budgets, range(args.seeds)):
        if (seed, steps) not in known_records(path):  # which another process may have continued
            record = {"seed": seed, "steps": steps, "found": claims_pair(args, seed, steps)}
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
    records = known_records(path).values()
    print(
        f"Mixture in {args.features} features and checkerboard, {args.rows} rows, {args.samples} samples; KL divergence"
    )
    gains = {}
    for steps in args.budgets:
        of_budget = [r["found"] for r in sorted(records, key=lambda r: r["seed"]) if r["steps"] == steps]
        print(f"{steps} steps, {len(of_budget)} seeds")
        if len(of_budget) > 1:
            gains[steps] = print_claims(of_budget, args.noise_levels)
    few, many = min(gains, default=0), max(gains, default=0)
    for target in gains[few] if few < many else ():
        n = min(len(gains[few][target]), len(gains[many][target]))
        verdict(
            "the gain by noise is larger after fewer steps", target, gains[few][target][:n] - gains[many][target][:n]
        )


def print_claims(records, levels):
    """The claims of one budget; the gain by noise of each seed, by target."""
    gains = {}
    for target, fields in (("mixture", FIELDS), ("checkerboard", ("b+eta",))):
        tables = {f: np.array([[r[f"{target} {f} {level:g}"] for level in levels] for r in records]) for f in fields}
        best = {f: at_levels_of_others(table, range(1, len(levels))) for f, table in tables.items()}
        inside = {f: at_levels_of_others(table, range(1, len(levels) - 1)) for f, table in tables.items()}
        mean = "  ".join(f"{level:g}: {v:.4f}" for level, v in zip(levels, tables["b+eta"].mean(0), strict=True))
        print(f"  {target}, b+eta, mean KL by noise level  {mean}")
        gains[target] = tables["b+eta"][:, 0] - best["b+eta"]
        verdict("an SDE is better than the ODE", target, gains[target])
        ends = [tables["b+eta"][:, k] - inside["b+eta"] for k in (0, -1)]
        verdict("the best level is interior", target, np.minimum(*ends))
        if target == "mixture":
            verdict("b is better than v", target, ((best["v+eta"] - best["b+eta"]) + (best["v+s"] - best["b+s"])) / 2)
            verdict("eta is better than s", target, ((best["b+s"] - best["b+eta"]) + (best["v+s"] - best["v+eta"])) / 2)
    return gains


def at_levels_of_others(table, columns):
    """For each seed (row), the value at the level that is best for the other seeds, so that no seed chooses its own."""
    columns = list(columns)
    chosen = [columns[np.delete(table, k, 0)[:, columns].mean(0).argmin()] for k in range(len(table))]
    return table[np.arange(len(table)), chosen]


def verdict(claim, target, differences):
    """Seen where the mean difference is above zero by its error, not seen where it is below, else undecided."""
    n, mean = len(differences), float(np.mean(differences))
    half = T_POINTS[n - 1] * float(np.std(differences, ddof=1)) / n**0.5
    told = "seen" if mean > half else "not seen" if mean < -half else "undecided"
    print(f"    {claim} ({target}): {told}; difference {mean:+.4f} +- {half:.4f}", flush=True)


def add_bridge_options(command, noise_levels, rows):
    command.add_argument("--budget", type=float, default=None, help="seconds a fit; the figures then vary")
    command.add_argument("--rows", type=int, default=rows, help="training rows of each end")
    command.add_argument("--samples", type=int, default=50_000)
    command.add_argument("--hidden", type=int, nargs="+", default=None, help="widths of the hidden layers")
    command.add_argument("--sde-steps", type=int, default=200)
    command.add_argument("--ode-steps", type=int, default=32)
    command.add_argument("--noise-levels", type=float, nargs="+", default=noise_levels, help="the first is 0: the ODE")
    command.add_argument("--noise-schedule", choices=["constant", "gamma"], default="constant")
    command.add_argument("--raw-units", action="store_true", help="preprocessing=None, as in the paper")


def add_notebook_options(command):
    command.add_argument("--rows", type=int, default=100_000, help="training rows of the target")
    command.add_argument("--test-rows", type=int, default=4000)
    command.add_argument("--ode-steps", type=int, default=100)
    command.add_argument("--uncapped", action="store_true", help="also the default without its cap of steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runs = {"checkerboard": checkerboard_table, "mixture": mixture_table, "notebook": notebook, "claims": claims}
    for name, function in runs.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(run=function)
        command.add_argument("--seeds", type=int, default={"notebook": 1, "claims": 5}.get(name, 3))
        command.add_argument("--steps", type=int, default=None, help="gradient steps")
    add_notebook_options(commands.choices["notebook"])
    add_bridge_options(commands.choices["checkerboard"], [0.0, 0.15, 0.5, 2.0], 50_000)
    commands.choices["checkerboard"].add_argument("--test-rows", type=int, default=2000)
    add_bridge_options(commands.choices["mixture"], [0.0, 0.03, 0.2, 1.0], 20_000)
    commands.choices["mixture"].add_argument("--features", type=int, default=128)
    add_bridge_options(commands.choices["claims"], [0.0, 0.1, 0.5, 2.0], 1000)
    commands.choices["claims"].add_argument("--features", type=int, default=4)
    commands.choices["claims"].add_argument("--budgets", type=int, nargs="+", default=[50, 200, 800])
    commands.choices["claims"].add_argument("--records", required=True, help="file of what was measured, continued")
    commands.choices["claims"].set_defaults(samples=2000, sde_steps=50, noise_schedule="gamma", hidden=[32, 32])
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
