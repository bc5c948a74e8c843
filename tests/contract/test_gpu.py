"""Every estimator on CUDA: it fits, and its answers from one model are those of the CPU (`pytest -m gpu`)."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import PowerTransformer

import sklearn_si
from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    MultimarginalFlow,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.tables import InterpolantImputer, TableSynthesizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA"),
]

DEVICE = "cuda"
RNG = np.random.default_rng(0)
X0, X1 = RNG.normal(size=(300, 2)), 1.0 + 0.5 * RNG.normal(size=(300, 2))
Y = X0[:, 0] + RNG.normal(size=300)
LABELS = np.where(Y > 0, "above", "below")
FRAME = pd.DataFrame({"a": X0[:, 0], "k": LABELS, "b": np.where(Y > 1, np.nan, X0[:, 1])})
SMALL = {"max_iter": 100, "hidden_layer_sizes": (16,), "random_state": 0, "device": DEVICE}
FLOW = InterpolantFlow(max_iter=100, hidden_layer_sizes=(16,), device=DEVICE)


def table():
    return TableSynthesizer(flow=FLOW, hidden_layer_sizes=(16, 1), max_iter=50, random_state=0, device=DEVICE)


# For each estimator: its fit, and a question whose answer draws nothing.
MODELS = {
    "flow": (lambda: InterpolantFlow(**SMALL).fit(X0), lambda m: m.score_samples(X0[:50])),
    "condition": (
        lambda: InterpolantFlow(**SMALL, condition_dropout=0.2).fit(X0, condition=LABELS),
        lambda m: m.score_samples(X0[:50], condition=LABELS[:50]),
    ),
    "any columns": (
        lambda: InterpolantFlow(**SMALL, conditionals="any").fit(X0), lambda m: m.score_samples(X0[:50], columns=[0]),
    ),
    "circular": (
        lambda: InterpolantFlow(**SMALL, support={0: ("circular", -9, 9)}).fit(X0), lambda m: m.score_samples(X0[:50]),
    ),
    "ensemble": (lambda: InterpolantFlow(**SMALL, n_estimators=2).fit(X0), lambda m: m.score_samples(X0[:50])),
    "optimal": (lambda: InterpolantFlow(**SMALL, coupling="optimal").fit(X0, X1), lambda m: m.transform(X0[:50])),
    "learned": (
        lambda: InterpolantFlow(**SMALL, interpolant="learned", base_density=None).fit(X0, X1),
        lambda m: m.transform(X0[:50]),
    ),
    "distilled": (
        lambda: InterpolantFlow(**SMALL).fit(X0).distill(max_iter=50).set_params(solver="distilled"),
        lambda m: m.transform(X0[:50]),
    ),
    "diffusion": (lambda: InterpolantDiffusion(**SMALL).fit(X0), lambda m: m.score_function(X0[:50], 0.5)),
    "forecast": (
        lambda: InterpolantDiffusion(**SMALL, start="condition").fit(X0, X1),
        lambda m: m.sample(20_000, condition=X0[0], random_state=0).mean(0).round(1),
    ),
    "bridge": (lambda: SchroedingerBridge(0.5, "network", **SMALL).fit(X0, X1), lambda m: m.transform(X0[:50])),
    "mixtures": (lambda: SchroedingerBridge(0.5, "mixture", **SMALL).fit(X0, X1), lambda m: m.transform(X0[:50])),
    "many samples": (
        lambda: MultimarginalFlow(**SMALL).fit([X0, X1, X0 + X1], [0, 1, 3]),
        lambda m: m.score_samples(X0[:50], time=1),
    ),
    "transformed": (
        lambda: TransformedDensity(PowerTransformer(), InterpolantFlow(**SMALL)).fit(X0),
        lambda m: m.score_samples(X0[:50]),
    ),
    "regressor": (
        lambda: InterpolantRegressor(FLOW, random_state=0, device=DEVICE).fit(X0, Y),
        lambda m: m.predict_quantiles(X0[:50], [0.1, 0.9]),
    ),
    "classifier": (
        lambda: InterpolantClassifier(FLOW, random_state=0, device=DEVICE).fit(X0, LABELS),
        lambda m: m.predict_proba(X0[:50]),
    ),
    "detector": (
        lambda: DensityOutlierDetector(InterpolantFlow(**SMALL), random_state=0).fit(X0),
        lambda m: m.score_samples(X0[:50]),
    ),
    "table": (lambda: table().fit(FRAME), lambda m: m.score_samples(FRAME[:50])),
    "imputer": (
        lambda: InterpolantImputer(table(), random_state=0).fit(FRAME),
        lambda m: m.synthesizer_.predict_proba(FRAME[:50], target="k"),
    ),
}  # fmt: skip


def on_the_cpu(model, path):
    """The same model with every part on the CPU: files say which device a fit had, and load without one."""
    sklearn_si.save(model, path)
    again = sklearn_si.load(path)
    devices = [name for name in again.get_params() if name.split("__")[-1] == "device"]
    return again.set_params(**dict.fromkeys(devices, "cpu"))


@pytest.mark.parametrize("name", MODELS)
def test_answers_of_a_model_on_cuda_are_those_of_the_cpu(name, tmp_path):
    fit, ask = MODELS[name]
    model = fit()
    answers = ask(model)
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(ask(on_the_cpu(model, tmp_path / "model.si")), answers, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["flow", "diffusion", "bridge", "many samples", "table"])
def test_draws_on_cuda_are_finite(name):
    drawn = MODELS[name][0]().sample(200)
    drawn = drawn[["a"]].to_numpy() if isinstance(drawn, pd.DataFrame) else drawn
    assert drawn.shape[0] == 200 and np.isfinite(drawn).all()
