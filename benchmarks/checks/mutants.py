"""Whether the tests notice: faults are planted one at a time in a copy of the checkout, and the tests run on each.

    python benchmarks/checks/mutants.py [--quick] [--jobs 2] [--only NAME ...]

A fault is caught if a test fails with it that passes without; a module that cannot be imported catches nothing. The
tests of the module come first, and only what passes them meets the rest of the suite (not with --quick).
"""

import argparse
import collections
import concurrent.futures
import contextlib
import importlib
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile
import time
from xml.etree import ElementTree

FORK = multiprocessing.get_context("fork")
HERE = pathlib.Path(__file__).resolve().parents[2]
# Of 30 faults, so many have to be caught.
NEEDED = 28 / 30
# Seconds of a run of tests: a fault that makes them hang is not caught.
PATIENCE = 900
# What the tests import of other libraries.
SHARED = (
    "pytest", "torch", "pandas", "polars", "narwhals", "hypothesis.extra.numpy", "matplotlib.pyplot", "scipy.stats",
    "sklearn.ensemble", "sklearn.mixture", "sklearn.utils.estimator_checks", "rich.progress", "skops.io",
)  # fmt: skip
# Test files, cheapest first; others follow.
CHEAP_FIRST = (
    "losses", "rows", "interpolants", "schedules", "preprocessing", "networks", "training_loop", "solvers", "marginals",
    "couplings", "metrics", "training", "identities", "fields", "sampling", "table_metrics", "table_codec",
    "likelihood", "density_methods", "persistence", "bridge", "distillation", "fields_learned", "compose", "fitting",
    "fitted_densities", "conditions", "contract", "race", "transport", "bad_input", "table_synthesizer", "workflows",
)  # fmt: skip
# The test files that are about a file of the library, the likeliest to notice first.
TESTS = {
    "_base": "sampling contract",
    "_base_density": "preprocessing",
    "_batches": "training",
    "_bridge": "bridge",
    "_bridge_fields": "bridge",
    "_conditions": "conditions",
    "_density_methods": "density_methods",
    "_diagnostics": "density_methods",
    "_distillation": "distillation",
    "_field_methods": "fields",
    "_fitting": "fitting training",
    "_checkpoint": "checkpoint",
    "_gammas": "interpolants",
    "_generation": "conditions",
    "_interpolant": "interpolants networks",
    "_learned_paths": "transport",
    "_likelihood": "density_methods likelihood",
    "_marginals": "marginals",
    "_objectives": "losses training fields",
    "_path_ascent": "transport",
    "_path_weights": "density_methods",
    "_perceptrons": "networks race",
    "_potentials": "bridge",
    "_race": "race",
    "_rectification": "transport",
    "_rows": "rows",
    "_runs": "fitting race",
    "_sampling_grid": "distillation",
    "_table_metrics": "table_metrics",
    "_tensors": "sampling",
    "_training": "training_loop",
    "_transport_metrics": "transport",
    "_weights": "training_loop race",
    "compose": "compose",
    "couplings": "couplings",
    "interpolants": "interpolants",
    "metrics": "metrics",
    "networks": "networks conditions",
    "persistence": "persistence",
    "preprocessing": "preprocessing marginals fields",
    "schedules": "schedules",
    "solvers": "solvers fields",
    "tables": "table_codec table_synthesizer",
}

Fault = collections.namedtuple("Fault", "name file old new tests", defaults=[None])

# What each is about; the file, below sklearn_si; its text, which occurs once; what stands there instead; the test files
# that are about it, where they are others than those of the file.
# fmt: off
FAULTS = [Fault(*fault) for fault in (
    # paths
    ("gamma_dot of the brownian noise has the other sign", "interpolants/_gammas.py",
     "return (1 - 2 * t) / (2 * _brownian(t))", "return (2 * t - 1) / (2 * _brownian(t))"),
    ("gamma gamma_dot of the sine noise lacks its half", "interpolants/_gammas.py",
     "math.pi / 2 * torch.sin(2 * math.pi * t)", "math.pi * torch.sin(2 * math.pi * t)"),
    ("beta_dot of encoding-decoding has the other sign", "interpolants.py",
     "torch.where(t > 0.5, math.pi * torch.sin(math.pi * t)", "torch.where(t > 0.5, -math.pi * torch.sin(math.pi * t)"),
    ("alpha_dot of the preserving path forgets its shrinkage", "interpolants.py",
     "return r * super().alpha_dot(t) - self.gamma_gamma_dot(t) / r * super().alpha(t)",
     "return r * super().alpha_dot(t)"),
    ("a Gaussian base absorbs gamma, but not its derivative", "interpolants.py",
     "return self.path.alpha_alpha_dot(t) + self.path.gamma_gamma_dot(t)", "return self.path.alpha_alpha_dot(t)"),
    ("the covariance of the ends counts once in the variance", "interpolants/_base.py",
     "own + 2 * a * b * c", "own + a * b * c"),
    # fields and losses
    ("the score from the velocity has the other sign", "_model/fields.py",
     "quotient = column(path.beta(t), x) * b - column(path.beta_dot(t), x) * x",
     "quotient = column(path.beta_dot(t), x) * x - column(path.beta(t), x) * b"),
    ("eta for -eta in the score of a foreign denoiser", "_model/fields.py",
     "return -self.denoiser(t, x) / column(path.gamma(t), x)", "return self.denoiser(t, x) / column(path.gamma(t), x)"),
    ("the denoiser learns -z", "_model/fields.py",
     "path.point(t, x0, x1, z), condition, z)", "path.point(t, x0, x1, z), condition, -z)"),
    ("the drift v learns the velocity b", "_model/fields.py",
     "path.mean_dot(t, x0, x1), weighted=True)", "path.point_dot(t, x0, x1, z), weighted=True)"),
    ("the target is predicted from b for v", "_model/fields.py",
     "v = b + path.gamma_gamma_dot(t) * self.score(t, x) if path.has_noise else b", "v = b"),
    ("the loss of the score pushes the other way", "_model/fields.py",
     "linear_term=z / column(path.gamma(t), x))", "linear_term=-z / column(path.gamma(t), x))"),
    ("the loss of a forecast has half of its noise", "_model/fields.py",
     "torch.sqrt(2 * field.a * t / (1 - t))", "torch.sqrt(field.a * t / (1 - t))"),
    ("the drift of the SDE lacks epsilon", "_model/fields.py",
     "b - sign * e / self.latent_scale(t)", "b - sign / self.latent_scale(t)"),
    ("the backward SDE has the forward sign", "_model/fields.py",
     "b - sign * e / self.latent_scale(t)", "b - e / self.latent_scale(t)"),
    ("every noise schedule is that of gamma", "_model/fields.py",
     'return self.latent_scale(t) if schedule == "gamma" else torch.ones_like(t)', "return self.latent_scale(t)"),
    ("the beta law of times has the inverse quantiles", "_model/fields.py",
     '"beta": lambda u: 1 - (1 - u) ** 2', '"beta": lambda u: 1 - (1 - u) ** 0.5'),
    ("rows that share a time are not those that stand together", "_model/fields.py",
     "t.repeat_interleave(rows_per_time, 1).flatten()", "t.repeat(1, rows_per_time).flatten()"),
    # solvers
    ("Euler-Maruyama has sqrt(epsilon) for sqrt(2 epsilon)", "solvers.py",
     "torch.sqrt(2 * e * h.abs()) * noise", "torch.sqrt(e * h.abs()) * noise"),
    ("the stochastic Heun step has its noise at the wrong time", "solvers.py",
     "return x + h / 2 * (slope + drift(t + h, end, epsilon(t + h))) + noise_increment",
     "return x + h / 2 * (slope + drift(t, end, epsilon(t + h))) + noise_increment"),
    ("the last step of the grid is left out", "solvers.py",
     "    states, slopes = [x], []\n    for t, t_next in itertools.pairwise(times):",
     "    states, slopes = [x], []\n    for t, t_next in itertools.pairwise(times[:-1]):"),
    ("the weights of rk4 are in the wrong order", "solvers.py",
     "(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "(1 / 6, 1 / 3, 1 / 6, 1 / 3)"),
    ("a weight of the embedded error lacks its sign", "solvers.py",
     "-17253 / 339200, 22 / 525", "17253 / 339200, 22 / 525"),
    ("a weight of the dense output lacks its sign", "solvers.py",
     "(0, 127303824393 / 49829197408,", "(0, -127303824393 / 49829197408,"),
    ("backward integrals have the forward sign", "solvers.py",
     "(stop - start) * u, (stop - start) * rate", "(stop - start) * u, abs(stop - start) * rate"),
    ("refinement is content with every row", "solvers.py",
     "missed = ~(error <= tolerance)", "missed = ~(error <= torch.inf)"),
    ("refinement states a thirty-second of the gap", "solvers.py",
     "torch.maximum(gap / 4, last_gap / 32)", "torch.maximum(gap / 32, last_gap / 256)"),
    ("rows that are not finite pass", "solvers.py",
     "    if len(bad):\n        raise", "    if len(bad) > len(x):\n        raise"),
    ("the denoising recursion takes beta of the step before", "solvers.py",
     "path.beta(t_next) * fields.target(t, x)", "path.beta(t) * fields.target(t, x)"),
    # densities
    ("the divergence has the other sign in the likelihood", "_model/likelihood.py",
     "torch.cat([parts, divergence[:, None]], 1)", "torch.cat([parts, -divergence[:, None]], 1)"),
    ("a bridge is scored as if its base were normal", "_model/likelihood.py",
     "parts, base_error = anchor_parts(x, n_steps)", "parts, base_error = standard_normal_parts(x, n_steps)"),
    ("the normal law in the middle of a path has no Jacobian", "_model/likelihood.py",
     "standard_normal_log_density(x / scale) - x.shape[1] * math.log(scale)", "standard_normal_log_density(x / scale)"),
    ("the density ratio lets its frame stand still", "_model/likelihood.py", "((b + frame) * some", "(b * some"),
    ("the Jacobian of the preprocessing is left out of the density", "_estimators/densities.py",
     "scaled + self.preprocessing_.log_abs_det_jacobian(X[rows])", "scaled"),
    ("the Jacobian of the preprocessing is left out of the chain", "_estimators/densities.py",
     "summary[name] = summary[name] + jacobian", "summary[name] = summary[name] + 0 * jacobian"),
    ("the base density is taken in its own units", "_estimators/densities.py",
     "base.score_samples(X) - base_map.log_abs_det_jacobian(X)", "base.score_samples(X)"),
    ("a base that is a flow lacks the Jacobian between both maps", "_estimators/densities.py",
     "torch.full_like(own[:, :1], jacobian)", "torch.zeros_like(own[:, :1])"),
    ("a score has no weights", "_estimators/densities.py",
     "return float(np.average(self._log_density(X, condition)[0], weights=weight))",
     "return float(np.average(self._log_density(X, condition)[0]))", "contract"),
    ("densities are double whatever the rows are", "_estimators/densities.py",
     "density, errors = np.empty(len(X), X.dtype), []", "density, errors = np.empty(len(X)), []", "contract"),
    ("the mean of path weights lacks log n", "_model/sde_likelihood.py",
     "torch.logsumexp(log_weights, 0) - math.log(m)", "torch.logsumexp(log_weights, 0)"),
    ("path weights of the step have half the variance", "_model/sde_likelihood.py", "/ (4 * e * h)", "/ (2 * e * h)"),
    ("the split KL bound has the printed constant", "_estimators/diagnostics.py",
     "(weights * (db / epsilon + epsilon * ds)).sum() / 2", "(weights * (db / epsilon + epsilon * ds)).sum() / 4"),
    ("the Fisher term counts the scale of the data twice", "_estimators/diagnostics.py",
     "scale.push_forward(own - score), scale.push", "scale.pull_back(own - score), scale.push"),
    # maps between units
    ("the log-determinant of the scale has the other sign", "preprocessing.py",
     "np.full(len(X), -self.log_abs_det)", "np.full(len(X), self.log_abs_det)"),
    ("a map of the columns lacks the Jacobian of what follows", "preprocessing.py",
     "self._forward(X)[1].sum(1) - self.affine.log_abs_det", "self._forward(X)[1].sum(1)"),
    ("gradients go back by D^-1 for D^-T", "preprocessing.py",
     "gradient @ self.inverse_scale\n", "gradient @ self.inverse_scale.T\n"),
    ("the score after a map of the columns lacks the curvature", "preprocessing.py",
     "* slopes + np.column_stack(curvatures)", "* slopes + 0 * np.column_stack(curvatures)"),
    ("the slope of a tail does not fall", "preprocessing/_splines.py",
     "np.log(rate) - grown + log_mass", "np.log(rate) + log_mass"),
    ("velocities in data units leave out the moving centre", "_estimators/fields.py",
     "self._scale.inverse_transform(b) + self._centre(time, derivative=True)", "self._scale.inverse_transform(b)"),
    ("points that are not finite pass where names do not matter", "_utils/input_checks.py",
     "check_array(check_cells(X, name), dtype=DTYPES, input_name=name)",
     "check_array(check_cells(X, name), dtype=DTYPES, input_name=name, ensure_all_finite=False)", "bad_input"),
    ("a transformed density lacks the Jacobian", "compose.py", "(value + jacobian).astype", "value.astype"),
    ("a power transform lacks the Jacobian of its scaler", "compose.py",
     "(_divided(step._scaler, rows) if step.standardize else 0.0)", "0.0"),
    # samples and streams
    ("samples are drawn from the stream of the fit", "_estimators/base.py",
     "make_generator(seed, SAMPLE_STREAM, resolve", "make_generator(seed, SAMPLE_STREAM - 1, resolve"),
    ("every chunk of a sample has the same noise", "_estimators/base.py",
     "            x = generate(self, fields.rows(rows)",
     "            generator.manual_seed(generator.initial_seed())\n            x = generate(self, fields.rows(rows)"),
    ("samples come back in double", "_estimators/base.py",
     "X = X.astype(dtype, copy=False)", "X = X.astype(np.float64, copy=False)", "contract"),
    ("a forecast has twice its noise", "_model/sampling.py",
     "a = estimator.gamma_scale / 2", "a = estimator.gamma_scale"),
    ("streams of one seed are the same", "_utils/tensors.py", "SeedSequence([seed, stream])", "SeedSequence([seed])"),
    ("a mirror moves along +gamma gamma_dot s", "networks.py",
     "b = -column(self.interpolant.gamma_gamma_dot(t), x)", "b = column(self.interpolant.gamma_gamma_dot(t), x)",
     "fields_learned"),
    ("guidance has the weight w - 1", "networks.py",
     "plain + self.weight * (self.field", "plain + (self.weight - 1) * (self.field"),
    ("a dropped condition is a row of zeros", "networks.py", "dropped[:, -1] = 1.0", "dropped[:, -1] = 0.0"),
    ("the divergence of a mixture lacks the turning of its weights", "networks.py",
     "(w * (slope + velocity * score).sum(-1)).sum(1) - (b * self._mean(w, score)).sum(1)",
     "(w * (slope + velocity * score).sum(-1)).sum(1)"),
    ("the divergence does not know in which units F is asked", "networks.py",
     "divergence = slope.expand(*slope.shape[:-1], x.shape[1]).sum(-1) + (scale / sd).squeeze(-1) * trace",
     "divergence = slope.expand(*slope.shape[:-1], x.shape[1]).sum(-1) + scale.squeeze(-1) * trace"),
    # training
    ("time features stop changing near the ends", "networks/_perceptrons.py",
     "u = torch.log((t + 0.02) / (1.02 - t)) / 4", "u = torch.log((t + 0.02) / (1.02 - t)).clamp(-2, 2) / 4"),
    ("the hand-written derivative of tanh is taken of its argument", "networks/_perceptrons.py",
     "gradient * (1 - h * h)", "gradient * (1 - a * a)"),
    ("what dropout keeps is not made larger", "networks/_perceptrons.py", ".mul_(256 / (256 - dropped))", ""),
    ("passes over the rows are not shuffled", "_training/batches.py",
     "torch.randperm(n, generator=generator, device=device), 0", "torch.arange(n, device=device), 0"),
    ("paired rows are permuted apart", "_training/batches.py",
     'if not getattr(self.coupling, "row_by_row", False):', "if self.x0 is not None:"),
    ("the condition does not follow its rows", "_training/batches.py",
     "self.condition.index_select(0, rows)", "self.condition.index_select(0, rows.flip(0))"),
    ("conditions are never dropped", "_training/batches.py", ">= self.dropout", ">= 0.0", "conditions"),
    ("antithetic pairs of the base have no minus", "_training/batches.py",
     "torch.cat([x0, -x0], -2)", "torch.cat([x0, x0], -2)"),
    ("antithetic pairs of the noise have no minus",
     "_training/batches.py", "torch.cat([z, -z], -2)", "torch.cat([z, z], -2)"),
    ("the condition is standardised by the rows at hand", "preprocessing/_conditions.py",
     "return (values - self.mean) / self.scale", "return (values - values.mean()) / self.scale"),
    ("Adam lacks the correction of its second moment", "_training/optimizer.py",
     "spread.mul_((1 - _SECOND**self.steps) ** -0.5).add_(_SMALL)", "spread.add_(_SMALL)"),
    ("the running mean is the last step", "_training/optimizer.py",
     "self.ema.lerp_(self.flat, 1 / min(max(1, self.steps), 10 + _AVERAGING * self.steps))",
     "self.ema.copy_(self.flat)"),
    ("the last weights are kept for the best", "_training/optimizer.py",
     "        if score > self.score:", "        if score > -math.inf:"),
    ("the best weights have the buffers of the last round", "_training/optimizer.py",
     "self.buffers or [b.clone() for b in self.networks.buffers()]",
     "[b.clone() for b in self.networks.buffers()]"),
    ("stale rounds never end the training", "_training/loop.py",
     "patience_lost = settings.early_stopping and history.stale >= settings.n_iter_no_change",
     "patience_lost = False"),
    ("a blown-up round is tried again at the same rate", "_training/loop.py",
     "settings.learning_rate_init * _LOWER ** len(history.tried)", "settings.learning_rate_init"),
    ("a blown-up round goes on from its own weights", "_training/optimizer.py",
     "            vector.copy_(values)\n        for vector in (self.gradient",
     "            pass\n        for vector in (self.gradient"),
    ("a resumed training draws new batches", "_training/batches.py",
     "            self.generator.set_state(state[\"generator\"])", "            pass",
     "checkpoint"),
    ("a resumed pass begins anew", "_training/batches.py",
     "            self.sampler.set_state(state[\"sampler\"])", "            pass", "checkpoint"),
    ("a resumed training forgets Adam's moments", "_training/optimizer.py",
     "for vector, value in zip((self.flat, self.ema, self._first, self._second), state[\"vectors\"], strict=True):",
     "for vector, value in zip((self.flat, self.ema), state[\"vectors\"][:2], strict=True):", "checkpoint"),
    ("a checkpoint of other rows is taken", "_training/checkpoint.py",
     "facts |= {name: joblib.hash(rows, coerce_mmap=True) for name, rows in samples.items()}", "pass", "checkpoint"),
    ("an interrupted fit removes its checkpoint", "_training/checkpoint.py",
     "        if self.interrupted and self.records and not self.facts[_BEFORE]:", "        if False:"),
    ("rows of an error are counted from the block", "exceptions.py",
     "np.asarray(error.rows, dtype=int) + start", "np.asarray(error.rows, dtype=int)", "hostile_fields"),
    ("hidden cells of masked arrays count", "_utils/input_checks.py",
     "    if np.ma.is_masked(X):", "    if False:", "adversarial"),
    ("a failed save leaves what it has written", "persistence.py",
     "        if os.path.exists(beside):\n            os.unlink(beside)", "        pass", "checkpoint persistence"),
    ("the rate does not know of the time", "_training/loop.py",
     "progress = max(progress, elapsed / settings.max_time)", "progress = max(progress, 0.0)"),
    ("a fit is validated on its training rows", "_training/run.py",
     "return self.likelihood_of(plan.held1)", "return self.likelihood_of(plan.train1)"),
    ("a bridge is validated on its training rows", "_training/run.py",
     "sampler = self._sampler(plan.held0, plan.held1)", "sampler = self._sampler(plan.train0, plan.train1)"),
    ("runs are compared in the units of each", "_training/run.py",
     "mean_over_rows(float(value.sum(1).mean()) + jacobian)", "mean_over_rows(float(value.sum(1).mean()))"),
    ("layers of a factory draw from the global generator", "_training/run.py",
     "with seeded_globally(self.plan.seed):\n            yield", "with contextlib.nullcontext():\n            yield",
     "race"),
    ("n_iter_ is one too many", "_training/run.py",
     "max(1, self.earlier.n_iter + history.n_iter)", "1 + self.earlier.n_iter + history.n_iter"),
    ("a warm start begins with fresh networks", "_training/problem.py",
     "maps=maps, networks=dict(estimator._learned_))", "maps=maps)"),
    ("held-out rows of pairs are split apart", "_training/problem.py",
     'elif getattr(coupling, "row_by_row", False):', 'elif getattr(coupling, "no_such_name", False):'),
    ("the base density has time of its own beyond max_time", "_training/problem.py",
     "        settings.max_time /= 2", "        settings.max_time /= 1"),
    ("the worst starts go on for the best", "_training/selection.py",
     "key=lambda run: -run.history.best_score)[:2]", "key=lambda run: run.history.best_score)[:2]"),
    # couplings and bridges
    ("the optimal plan is read from its other side", "couplings.py",
     "linear_sum_assignment(cost)[1]", "linear_sum_assignment(cost.T)[1]"),
    ("the entropic plan has twice its epsilon", "couplings.py",
     "(x0 @ x1.T) / (2 * epsilon)", "(x0 @ x1.T) / (4 * epsilon)"),
    ("an entropic coupling has the epsilon of gamma^2", "couplings.py",
     "tied.epsilon = float(a[0]) / 2", "tied.epsilon = float(a[0])"),
    ("optimal pairs leave the condition behind", "couplings.py",
     "return x0, x1[rows], None if condition is None else condition[rows]\n\n\nclass Entropic",
     "return x0, x1[rows], condition\n\n\nclass Entropic"),
    ("the mean of the plan backward has the forward score", "_estimators/bridge.py",
     "sign * self.epsilon * fields.score(time, x)", "self.epsilon * fields.score(time, x)"),
    ("the score of a bridge is twice as long", "_estimators/bridge_fields.py",
     "factor / (2 * self.potential.epsilon)", "factor / self.potential.epsilon"),
    ("the divergence of a potential lacks its variance", "_estimators/bridge_potentials.py",
     "return u, trace + variance / (2 * self.epsilon)", "return u, trace"),
    ("the path goes down where it should go up",
     "_training/path_learning.py", "work - half_action", "half_action - work"),
    ("a flow is rectified to pairs that are not its own", "_estimators/rectification.py",
     "Sampler(x0[rows], x1[rows], None, paired, False)", "Sampler(x0[rows], x1[rows].flip(0), None, paired, False)"),
    ("the sampling grid is compared with itself",
     "_model/step_choice.py", "end(2 * n_steps, spacing)", "end(n_steps, spacing)"),
    ("the time of the Ornstein-Uhlenbeck process is doubled", "schedules.py",
     "torch.log1p(sigma_of_time(interpolant, t) ** 2) / 2", "torch.log1p(sigma_of_time(interpolant, t) ** 2)"),
    ("rows of a file are numbered from its beginning", "_training/lazy_rows.py",
     "rows = rows if self.numbers is None else self.numbers[rows]\n        return as_tensor", "return as_tensor"),
    # tables, metrics, files
    ("the chain of codes foretells what it is shown", "tables/_masked.py",
     "            logs = network.column(j, shown, values[rows])\n            total",
     "            shown[:, j] = code\n            logs = network.column(j, shown, values[rows])\n            total"),
    ("hidden codes are shown in training", "tables/_masked.py",
     "    codes[torch.arange(n, device=device), step] = False\n", ""),
    ("a table's density lacks the slopes of its columns", "tables/_synthesizer.py",
     "            total += self.codec_._log_slopes(readings)\n", ""),
    ("a table's density has the log-determinant the wrong way", "tables/_values.py",
     "* idle - law.log_det[which]", "* idle + law.log_det[which]"),
    ("coordinates without meaning cost a table its density", "tables/_values.py",
     "value + 0.5 * np.log(2 * np.pi) * idle -", "value -"),
    ("imputed tables do not keep the cells that were there", "tables/_synthesizer.py",
     "np.random.RandomState(seed), readings, index_of(X)))",
     "np.random.RandomState(seed), [None] * len(readings), index_of(X)))"),
    ("values are drawn as if none were given", "tables/_values.py",
     "drawn = centre + _apply(law.gain[which], known) + _apply", "drawn = centre + _apply"),
    ("probabilities are those of the column of that number", "tables/_synthesizer.py",
     "column(self._coded.index(j), known", "column(j % len(self._coded), known"),
    ("energy distances count a row with itself", "metrics.py",
     "(len(X) - 1 if Y is None else len(Y))", "(len(X) if Y is None else len(Y))"),
    ("the classifier test is high where tables differ", "metrics/_tables.py",
     "1 - abs(2 * roc_auc_score(y, p) - 1)", "abs(2 * roc_auc_score(y, p) - 1)"),
    ("coverage counts synthetic rows for real ones", "metrics/_tables.py",
     "_nearest(new, rows)[:, 0] <= radius", "_nearest(rows, new)[:, 0] <= radius"),
    ("the floor of a transport is a distance from itself", "metrics/_transport.py",
     "wasserstein_distance(X1[:half], X1[half : 2 * half])", "wasserstein_distance(X1[:half], X1[:half])"),
    ("arrays in column order are read in row order", "persistence.py",
     'order="F" if header[2] == "True" else "C"', 'order="C"'),
)]
# fmt: on


def stem(path):
    return pathlib.PurePath(path).stem.removeprefix("test_")


def cost(path):
    place = {name: k for k, name in enumerate(CHEAP_FIRST)}
    return place.get(stem(path), len(place)), path


def first_tests(fault):
    """The tests of the module, and its doctests."""
    names = fault.tests or TESTS["tables" if fault.file.startswith("tables/") else fault.file.removesuffix(".py")]
    return [*(f"tests/test_{name}.py" for name in names.split()), f"sklearn_si/{fault.file}"]


def other_tests(fault):
    files = [*HERE.glob("tests/test_*.py"), *HERE.glob("sklearn_si/**/*.py")]
    return sorted({str(path.relative_to(HERE)) for path in files} - {*first_tests(fault)}, key=cost)


def checkout(folder):
    """A copy of the checkout."""
    left = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "shared", "_build", "generated")
    shutil.copytree(HERE, folder, ignore=left)
    return folder


class OneOfEachFirst:
    """A plugin: one instance of every test of all files, then the other instances, file by file."""

    @staticmethod
    def pytest_collection_modifyitems(items):
        seen, places = collections.Counter(), {}
        for item in items:
            name = item.nodeid.partition("[")[0]
            places[item] = seen[name] > 0
            seen[name] += 1
        items.sort(key=places.__getitem__)


def pytest_in(folder, arguments):
    """What the forked process does: pytest, in a copy of the checkout."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        importlib.import_module("pytest").main(arguments, plugins=[OneOfEachFirst()])


def run(folder, tests, *options):
    """Run some tests in a copy: those that failed, and whether all modules could be imported."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    arguments = [*tests, "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, "--tb=no"]
    arguments += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    # forked, so that torch and its like are imported once for all faults
    process = FORK.Process(target=pytest_in, args=(folder, arguments))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        raise TimeoutError
    failed, importable = [], report.exists()
    for case in ElementTree.parse(report).iter("testcase") if importable else ():
        faults = [*case.findall("failure"), *case.findall("error")]
        importable &= all(fault.get("message") != "collection failure" for fault in faults)
        failed += [f"{case.get('file')}::{case.get('name')}"] * bool(faults)
    return failed, importable


def verdict(fault, folder, quick, processes):
    """What the tests say of a fault: the verdict, the first test that failed, and seconds."""
    began, path = time.perf_counter(), checkout(folder) / "sklearn_si" / fault.file
    path.write_text(path.read_text().replace(fault.old, fault.new))
    try:
        failed, importable = run(folder, first_tests(fault), "-x", "-n", "0")
        if importable and not failed and not quick:
            failed, importable = run(folder, other_tests(fault), "-x", "-n", str(processes))
        said = "import error" if not importable else "caught" if failed else "SLIPPED"
    except TimeoutError:
        said, failed = "hangs", []
    shutil.rmtree(folder)
    return said, failed[0] if said == "caught" else "", time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=1, help="faults that are tried at the same time")
    parser.add_argument("--quick", action="store_true", help="run the tests of the module alone")
    parser.add_argument("--processes", type=int, default=2, help="of a run of the rest of the suite")
    args = parser.parse_args()
    faults = [f for f in FAULTS if not args.only or any(name in f.name for name in args.only)]
    texts = {f.file: (HERE / "sklearn_si" / f.file).read_text() for f in faults}
    counts = {f: texts[f.file].count(f.old) for f in faults}
    stale = [f"{count} times in {f.file}: {f.name}" for f, count in counts.items() if count != 1]
    if stale or not faults:
        sys.exit("\n".join(["No fault of that name, or texts that do not occur once:", *stale]))
    began, found = time.perf_counter(), {}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [pathlib.Path(temporary) / str(k) for k in range(len(faults))]
        with concurrent.futures.ProcessPoolExecutor(args.jobs, FORK) as pool:
            how = [args.quick] * len(faults), [args.processes] * len(faults)
            for fault, (said, test, seconds) in zip(faults, pool.map(verdict, faults, folders, *how), strict=True):
                found[fault.name] = said, test
                print(f"{said:<12} {seconds:6.1f} s  {fault.name:<66} {test}", flush=True)
        # a test that fails without the fault as well says nothing of it
        tests = sorted({path for fault in faults for path in first_tests(fault)}, key=cost)
        unsound = run(checkout(pathlib.Path(temporary) / "as it is"), tests, "-n", "0")[0]
    for name, (_, test) in found.items():
        if test in unsound:
            print(f"not counted: {name}: {test} fails without it as well")
    caught = sum(said == "caught" and test not in unsound for said, test in found.values())
    print(f"{caught} of {len(faults)} caught in {(time.perf_counter() - began) / 60:.0f} minutes")
    sys.exit(caught < NEEDED * len(faults))


if __name__ == "__main__":
    main()
