"""Do the answers of every estimator stay the same to the bit? Write them down before a change, and compare after it.

    python benchmarks/checks/golden.py write before.npz
    python benchmarks/checks/golden.py compare before.npz

Small fits of every kind (one and two samples, conditions, noise, paths, couplings, preprocessing, bridges, distilled
and rectified flows, tables, files) with fixed seeds on one thread, and what they answer to every method. Both commands
take about a minute. `compare` prints each line that differs with its largest absolute difference, and exits with 1 if
there is one. Only the public interface is used, so that the script runs on older and newer commits alike; a file
belongs to one machine and one release of torch, whose sums another one may take in another order.
"""

import argparse
import functools
import io
import pathlib
import pickle
import sys
import tempfile
import time
import warnings

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import PowerTransformer

from sklearn_si import (
    InterpolantDiffusion,
    InterpolantFlow,
    SchroedingerBridge,
    TransformedDensity,
    load,
    metrics,
    save,
)
from sklearn_si.couplings import Entropic, Optimal
from sklearn_si.metrics import energy_distance
from sklearn_si.networks import MLP
from sklearn_si.tables import InterpolantImputer, TableCodec, TableReport, TableSynthesizer

# Rows of the samples, and rows that a fitted model is asked about.
N_ROWS = 240
N_ASKED = 7
# Gradient steps of a fit.
STEPS = 40
SMALL = {"max_iter": STEPS, "hidden_layer_sizes": (16, 16), "random_state": 0, "batch_size": 64}
# A flow of fixed preprocessing compares no runs.
PLAIN = {**SMALL, "preprocessing": "standardize"}


def samples():
    """Two samples of two columns, a condition of numbers and one of words, and a table of mixed columns."""
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(N_ROWS, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    X1 = np.where(rng.random((N_ROWS, 1)) < 0.5, -2.0, 2.0) + 0.7 * rng.normal(size=(N_ROWS, 2))
    numbers = X1[:, :1] + rng.normal(size=(N_ROWS, 1))
    words = np.where(X1[:, 0] > 0, "right", "left")
    level = rng.integers(3, size=N_ROWS)
    table = pd.DataFrame(
        {
            "level": np.array(["a", "b", "c"])[level],
            "x": level + rng.normal(size=N_ROWS),
            "count": rng.poisson(2 + level),
            "part": np.where(rng.random(N_ROWS) < 0.3, np.nan, rng.normal(size=N_ROWS)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(400, size=N_ROWS), unit="D"),
            "kind": pd.Categorical(np.array(["u", "v"])[rng.integers(2, size=N_ROWS)]),
        }
    )
    return X0, X1, numbers, words, table


X0, X1, NUMBERS, WORDS, TABLE = samples()


# ------------------------------------------------------------------------------------- answers


class Answers(dict):
    """Arrays by stable names."""

    def add(self, name, value):
        """Write a value down: numbers and words as arrays, what is made of others part by part."""
        if isinstance(value, pd.DataFrame):
            for column in value.columns:
                self.add(f"{name}[{column}]", value[column])
        elif isinstance(value, dict):
            for key, part in value.items():
                self.add(f"{name}.{key}", part)
        elif isinstance(value, (tuple, list)) and not all(isinstance(part, (int, float)) for part in value):
            for k, part in enumerate(value):
                self.add(f"{name}.{k}", part)
        else:
            self[name] = array_of(value)

    def ask(self, name, question):
        """Write down what a call gives, or the name of the error that it raises."""
        try:
            value = question()
        except (ValueError, AttributeError) as error:  # of a method that is not offered
            value = f"{type(error).__name__}"
        self.add(name, value)


def array_of(value):
    """An array that can be stored without pickle."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, pd.Series):
        value = value.to_numpy() if value.dtype.kind in "fiub" else value.astype(str).to_numpy()
    value = np.asarray(value)
    return value if value.dtype.kind in "fiubU" else value.astype(str)


FITTED = ("loss_curve_", "validation_scores_", "best_validation_score_", "n_iter_", "sampling_grid_", "action_curve_")


def ask_all(answers, name, model, X, other=None, condition=None, wide=True):
    """Ask a fitted model of rows everything; `other` is the sample that its ends are measured on with X."""
    given = {} if condition is None else {"condition": condition[:N_ASKED]}
    rows, few = X[:N_ASKED], N_ASKED

    def ask(what, question):
        answers.ask(f"{name}/{what}", question)

    for attribute in FITTED:
        value = getattr(model, attribute, None)
        answers.add(f"{name}/{attribute}", np.nan if value is None else value)
    ask("sample", lambda: model.sample(few, random_state=1, **given))
    ask("sample of its own seed", lambda: model.sample(few, **given))
    ask("score_samples", lambda: model.score_samples(rows, return_error=True, **given))
    ask("transform", lambda: model.transform(rows, **given))
    ask("inverse_transform", lambda: model.inverse_transform(rows, **given))
    if not wide:
        return
    ask("score_samples at .5", lambda: model.score_samples(rows, t=0.5, **given))
    ask("score", lambda: model.score(rows, **given))
    for field in ("velocity", "score_function", "denoiser", "predict_target"):
        ask(field, lambda field=field: getattr(model, field)(rows, 0.3, **given))
    ask("trajectory", lambda: model.trajectory(rows, 3, **given))
    ask("noisy trajectory", lambda: model.trajectory(rows, 3, noise_level=0.2, random_state=1, **given))
    ask("log_density_gradient", lambda: model.log_density_gradient(rows, **given))
    ask("density_ratio", lambda: model.density_ratio(rows, **given))
    ask("cross_entropy", lambda: model.cross_entropy(rows, **given))
    ask("log_density_bound", lambda: model.log_density_bound(rows, n_paths=4, **given))
    ask("resample", lambda: model.resample(rows, random_state=1, **given))
    ask("interpolate", lambda: model.interpolate(X[:few], (X if other is None else other)[:few], 0.4, random_state=1))
    if condition is None:
        ends = (X[:100],) if other is None else (other[:100], X[:100])
        ask("diagnose", lambda: numbers_of(model.diagnose(*ends)))
        ask("fisher_divergence", lambda: numbers_of(model.fisher_divergence(*ends)))


def numbers_of(report):
    """The numbers of a report, as far as it is one of fields or keys."""
    fields = vars(report) if hasattr(report, "__dict__") and not isinstance(report, dict) else report
    if not isinstance(fields, dict):
        return fields
    return {key: value for key, value in fields.items() if isinstance(value, (int, float, np.ndarray, np.number))}


# ---------------------------------------------------------------------------------------- fits


def one_sample(answers):
    """Densities of one sample: preprocessing, paths, times, fields of one's own, dtypes."""
    flow, diffusion = InterpolantFlow, InterpolantDiffusion
    distribution = "time_distribution" if "time_distribution" in flow().get_params() else "time_law"
    models = {
        "default": flow(**SMALL),
        **{f"preprocessing {kind}": flow(**{**SMALL, "preprocessing": kind})
           for kind in ("standardize", "whiten", "marginal", "marginal-whiten", None)},
        **{f"interpolant {path}": flow(path, **PLAIN)
           for path in ("trigonometric", "trigonometric-preserving", "encoding-decoding",
                        "encoding-decoding-preserving", "vp", "mirror")},
        **{f"times {kind}": flow(**PLAIN, **{distribution: kind})
           for kind in ("uniform", "logit-normal", "arcsine", "beta")},
        "activation tanh": flow(**PLAIN, activation="tanh", dropout=0.1),
        "no early stopping": flow(**PLAIN, early_stopping=False, n_iter_no_change=3, tol=0.1),
        "factory": flow(**PLAIN, network=functools.partial(MLP, hidden_layer_sizes=(8, 8))),
        "bf16": flow(**PLAIN, bf16=True),
        "diffusion": diffusion(**PLAIN, n_steps=12),
        "diffusion mirror": diffusion("mirror", **PLAIN, n_steps=12, noise_level=0.5),
        "diffusion sde density": diffusion(**PLAIN, n_steps=6, likelihood="sde"),
    }  # fmt: skip
    for name, model in models.items():
        narrow = name.startswith(("preprocessing", "times"))
        ask_all(answers, f"one/{name}", model.fit(X1), X1, wide=not narrow)
    single = flow(**PLAIN).fit(X1.astype(np.float32))
    ask_all(answers, "one/float32", single, X1.astype(np.float32))
    frame = pd.DataFrame(X1, columns=["a", "b"])
    answers.ask("one/frame", lambda: flow(**PLAIN).set_output(transform="pandas").fit(frame).sample(3))
    warm = flow(**PLAIN, warm_start=True).fit(X1)
    ask_all(answers, "one/warm start", warm.fit(X1), X1, wide=False)


def two_samples(answers):
    """Transport between two samples: paths, gammas, fields, couplings, densities of the base."""
    flow, diffusion = InterpolantFlow, InterpolantDiffusion
    plain = {**PLAIN, "base_density": "normal"}
    models = {
        "flow base flow": flow(**PLAIN),
        "flow base mixture": flow(**PLAIN | {"base_density": GaussianMixture(2, random_state=0)}),
        "flow base standard normal": flow(**PLAIN | {"base_density": "standard_normal"}),
        "flow no base": flow(**PLAIN | {"base_density": None}),
        "flow auto": flow(**{**plain, "preprocessing": "auto"}),
        "flow whiten": flow(**{**plain, "preprocessing": "whiten"}),
        "flow gamma": flow(**plain, gamma="brownian", gamma_scale=0.3),
        **{f"interpolant {path}": diffusion(path, **plain, n_steps=8)
           for path in ("trigonometric", "encoding-decoding", "learned", "learned-schedule")},
        **{f"gamma {gamma}": diffusion(**plain, gamma=gamma, n_steps=8)
           for gamma in ("brownian", "quadratic", "sine", "sine-squared", "sigmoid")},
        **{f"fields {fields}": diffusion(**plain, fields=fields, n_steps=8) for fields in ("b+s", "v+eta", "v+s")},
        **{f"coupling {kind}": flow(**plain, coupling=kind) for kind in ("paired", "optimal")},
        "coupling entropic": diffusion(**plain, coupling="entropic", n_steps=8),
        "coupling Optimal": flow(**plain, coupling=Optimal(batch_size=64, passes=2)),
        "coupling Entropic": flow(**plain, coupling=Entropic(epsilon=0.2, batch_size=64)),
        "flow learned": flow("learned", **plain),
    }  # fmt: skip
    for name, model in models.items():
        wide = name in (
            "flow base flow",
            "flow no base",
            "interpolant encoding-decoding",
            "gamma brownian",
            "fields v+s",
        )
        ask_all(answers, f"two/{name}", model.fit(X0, X1), X1, X0, wide=wide)
    bridge = flow(**plain).fit(X0, X1)
    answers.ask("two/transport_report", lambda: numbers_of(metrics.transport_report(bridge, X0[:60], X1[:60])))
    answers.ask("two/path_energy", lambda: metrics.path_energy(bridge, X0[:60], n_times=5))
    straight = bridge.rectify(1, max_iter=STEPS)
    ask_all(answers, "two/rectified", straight, X1, X0, wide=False)


def conditions(answers):
    """Conditions of numbers and words, dropped and guided, and start rows."""
    both = pd.DataFrame({"number": NUMBERS[:, 0], "word": WORDS})
    models = {
        "numbers": (InterpolantFlow(**PLAIN), NUMBERS),
        "words": (InterpolantFlow(**PLAIN), WORDS),
        "both": (InterpolantFlow(**SMALL), both),
        "guided": (InterpolantFlow(**PLAIN, condition_dropout=0.2, guidance=1.5), WORDS),
        "diffusion": (InterpolantDiffusion(**PLAIN, n_steps=8, condition_dropout=0.1), NUMBERS),
    }
    for name, (model, condition) in models.items():
        ask_all(answers, f"condition/{name}", model.fit(X1, condition=condition), X1, condition=condition)
    pair = InterpolantFlow(**PLAIN, coupling="optimal", base_density=None).fit(X0, X1, condition=WORDS)
    ask_all(answers, "condition/two samples", pair, X1, X0, condition=WORDS, wide=False)
    dropped = models["guided"][0].set_params(guidance=1.0)
    answers.ask("condition/dropped", lambda: dropped.sample(5, random_state=1))
    forecast = InterpolantDiffusion(**PLAIN, start="condition", gamma_scale=0.5, n_steps=8).fit(X0, X1)
    answers.ask("condition/start", lambda: forecast.sample(5, condition=X0[:5], random_state=1))
    answers.ask("condition/start velocity", lambda: forecast.velocity(X0[:5], 0.3, condition=X0[:5]))


def solvers(answers):
    """The ways of drawing rows after one fit, and what may be changed after it."""
    flow = InterpolantFlow(**PLAIN).fit(X1)
    for solver in ("euler", "midpoint", "heun", "rk4", "dopri5", "dopri5-adaptive", "denoising"):
        flow.set_params(solver=solver, n_steps=6)
        answers.ask(f"solver/{solver}", lambda: flow.sample(5, random_state=1))
    answers.ask("solver/ode_tol", lambda: flow.set_params(ode_tol=1e-6).score_samples(X1[:5], return_error=True))
    model = InterpolantDiffusion(**PLAIN, n_steps=10).fit(X1)
    for solver in ("euler-maruyama", "stochastic-heun", "stochastic-heun-denoised"):
        for schedule in ("gamma", "constant", "optimal", lambda t: 1 - t):
            model.set_params(solver=solver, noise_schedule=schedule, noise_level=0.7)
            name = schedule if isinstance(schedule, str) else "callable"
            answers.ask(f"solver/{solver} {name}", lambda: model.sample(5, random_state=1))
    answers.ask("solver/sde density", lambda: model.set_params(likelihood="sde").score_samples(X1[:5]))
    for k in (1, 2):
        flow.distill(k, max_iter=STEPS)
        flow.set_params(solver="distilled", n_steps="auto")
        answers.ask(f"solver/distilled {k}", lambda: flow.sample(5, random_state=1))
    report = numbers_of(flow.distillation_report_)
    # seconds are no answer
    answers.add("solver/distillation", {key: part for key, part in report.items() if not key.startswith("time")})


def bridges(answers):
    """Schroedinger bridges, of both methods."""
    small = {key: PLAIN[key] for key in ("max_iter", "hidden_layer_sizes", "random_state", "batch_size")}
    for method in ("network", "mixture"):
        for samples_of_fit in ((X0, X1), (X1,)):
            name = f"bridge/{method} {len(samples_of_fit)}"
            bridge = SchroedingerBridge(0.3, method, n_steps=8, base_density="normal", **small).fit(*samples_of_fit)
            ask_all(answers, name, bridge, X1, X0, wide=len(samples_of_fit) == 2)
            for direction in ("forward", "backward"):
                answers.ask(
                    f"{name}/sample_plan {direction}",
                    lambda bridge=bridge, direction=direction: bridge.sample_plan(
                        X0[:5], direction=direction, random_state=1
                    ),
                )
    answers.ask("bridge/plan_moments", lambda: numbers_of(metrics.plan_moments(bridge, X0[:5], n_draws=16)))


def compositions(answers):
    """Transformers before a density; searches by scores."""
    for name, transformer in {"power": PowerTransformer(), "quantiles": PowerTransformer(standardize=False)}.items():
        model = TransformedDensity(transformer, InterpolantFlow(**PLAIN)).fit(X1)
        for what, question in {
            "sample": lambda model=model: model.sample(5, random_state=1),
            "score_samples": lambda model=model: model.score_samples(X1[:5], return_error=True),
            "transform": lambda model=model: model.transform(X1[:5]),
            "inverse_transform": lambda model=model: model.inverse_transform(X1[:5]),
            "score": lambda model=model: model.score(X1[:50]),
        }.items():
            answers.ask(f"compose/{name}/{what}", question)


def tables(answers):
    """The codec, the synthesizer, the imputer and the report."""
    kinds = {"x": "continuous"}
    codec = TableCodec(kinds, random_state=0).fit(TABLE)
    answers.ask("table/codec", lambda: codec.transform(TABLE[:20]))
    answers.ask("table/codec back", lambda: codec.inverse_transform(codec.transform(TABLE[:20])))
    answers.ask("table/codec jacobian", lambda: codec.log_abs_det_jacobian(TABLE[:20]))
    answers.ask("table/codec codes", lambda: codec.encode(TABLE[:20], random_state=1))
    flow = InterpolantFlow(**{key: PLAIN[key] for key in ("hidden_layer_sizes", "preprocessing", "batch_size")})
    synthesizer = TableSynthesizer(flow=flow, hidden_layer_sizes=(16, 1), max_iter=STEPS, random_state=0)
    names = {"mixed": TABLE, "numbers": TABLE[["x", "part"]], "words": TABLE[["level", "kind"]]}
    for name, table in names.items():
        ask_table(answers, f"table/{name}", synthesizer.fit(table), table)
    model = synthesizer.fit(TABLE)
    for average in (1, 3):
        imputer = InterpolantImputer(synthesizer, average=average, random_state=0).fit(TABLE)
        answers.ask(f"table/imputer {average}", lambda imputer=imputer: imputer.transform(with_gaps(TABLE)))
    drawn = model.sample(120, random_state=2)
    answers.ask(
        "table/report", lambda: TableReport(TABLE[:120], drawn, TABLE[120:], target="level", random_state=0).to_frame()
    )
    return model


def ask_table(answers, name, model, table):
    """Ask a synthesizer of rows everything."""
    given = table[[table.columns[0]]][:9]
    answers.ask(f"{name}/sample", lambda: model.sample(20, random_state=1))
    answers.ask(f"{name}/sample of its own seed", lambda: model.sample(3))
    answers.ask(f"{name}/score_samples", lambda: model.score_samples(table[:20]))
    answers.ask(f"{name}/score", lambda: model.score(table[:20]))
    answers.ask(f"{name}/given", lambda: model.sample(given=given, random_state=1))
    answers.ask(f"{name}/impute", lambda: model.impute(with_gaps(table), n_draws=2, random_state=1))
    answers.ask(f"{name}/predict_proba", lambda: model.predict_proba(table[:9], target="level"))


def with_gaps(table):
    """Some rows of a table of which the last column and every other first cell are missing."""
    table = table[:12].copy()
    table.loc[::2, table.columns[0]] = None
    table[table.columns[-1]] = table[table.columns[-1]].where(np.arange(len(table)) % 3 > 0)
    return table


def measures(answers):
    """Distances of samples and tables."""
    frames = pd.DataFrame(X0, columns=["a", "b"]), pd.DataFrame(X1, columns=["a", "b"])
    for name, question in {
        "energy_distance": lambda: energy_distance(X0, X1),
        "sliced_wasserstein": lambda: metrics.sliced_wasserstein(X0, X1),
        "wasserstein_distance": lambda: metrics.wasserstein_distance(X0, X1),
        "maximum_mean_discrepancy": lambda: metrics.maximum_mean_discrepancy(X0, X1),
        "coverage": lambda: numbers_of(metrics.coverage(*frames)),
        "marginal_distances": lambda: metrics.marginal_distances(*frames),
        "pair_trends": lambda: numbers_of(metrics.pair_trends(*frames)),
        "c2st": lambda: metrics.c2st(*frames, cv=2),
        "closest_record": lambda: numbers_of(metrics.closest_record(frames[0], frames[1], frames[1][::2])),
    }.items():
        answers.ask(f"metric/{name}", question)


def files(answers, synthesizer):
    """The answers of models that were saved and loaded, pickled and unpickled."""
    models = {
        "flow": InterpolantFlow(**SMALL).fit(X1, condition=WORDS),
        "diffusion": InterpolantDiffusion(**PLAIN, n_steps=8).fit(X0, X1),
        "bridge": SchroedingerBridge(0.3, "mixture", base_density="normal", random_state=0).fit(X0, X1),
        "transformed": TransformedDensity(PowerTransformer(), InterpolantFlow(**PLAIN)).fit(X1),
        "table": synthesizer,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = pathlib.Path(folder) / name
            save(model, path)
            again = {"file": load(path), "pickle": pickle.load(io.BytesIO(pickle.dumps(model)))}
            for way, other in again.items():
                given = {"condition": WORDS[:5]} if name == "flow" else {}
                rows = TABLE[:5] if name == "table" else X1[:5]
                answers.ask(
                    f"{way}/{name}/sample", lambda other=other, given=given: other.sample(5, random_state=1, **given)
                )
                answers.ask(
                    f"{way}/{name}/score_samples",
                    lambda other=other, given=given, rows=rows: other.score_samples(rows, **given),
                )


def run(verbose):
    """All answers, and the seconds of each part."""
    answers = Answers()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        synthesizer = None
        for part in (one_sample, two_samples, conditions, solvers, bridges, compositions, measures, tables, files):
            start = time.perf_counter()
            result = part(answers, synthesizer) if part is files else part(answers)
            synthesizer = result if part is tables else synthesizer
            if verbose:
                print(f"{part.__name__}: {time.perf_counter() - start:.0f} s, {len(answers)} answers so far")
    return answers


def difference(before, after):
    """How two arrays differ, in words; None where they are the same to the bit."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"{before.dtype}{before.shape} became {after.dtype}{after.shape}"
    if before.tobytes() == after.tobytes():
        return None
    if before.dtype.kind in "Ub":
        k = np.flatnonzero((before != after).ravel())
        return f"{len(k)} of {before.size} differ, first {before.ravel()[k[0]]} and then {after.ravel()[k[0]]}"
    gap = np.abs(before.astype(float) - after.astype(float))
    largest = np.nanmax(np.abs(before), initial=0.0)
    return f"largest absolute difference {np.nanmax(gap, initial=0.0):.3g}, of numbers up to {largest:.3g}"


def main():
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "compare"])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true", help="say how long each part took")
    options = parser.parse_args()
    after = run(options.verbose)
    errors = sum(a.dtype.kind == "U" and a.shape == () and str(a).endswith("Error") for a in after.values())
    if options.command == "write":
        np.savez_compressed(options.file, **{name.replace("/", "|"): value for name, value in after.items()})
        print(f"{len(after)} answers written, of which {errors} are errors")
        return 0
    with np.load(options.file) as stored:
        before = {name.replace("|", "/"): stored[name] for name in stored.files}
    lines = [f"{name}: {'gone' if name in before else 'new'}" for name in sorted(set(before) ^ set(after))]
    for name in before.keys() & after.keys():
        words = difference(before[name], after[name])
        lines += [] if words is None else [f"{name}: {words}"]
    print(*sorted(lines), sep="\n", end="\n" * bool(lines))
    print(f"{len(before.keys() & after.keys())} answers compared, {len(lines)} lines differ")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
