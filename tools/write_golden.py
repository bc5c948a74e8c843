"""Write the saved models that later versions have to load, with the answers that they gave.

python tools/write_golden.py [NAME ...]    # from the root of the checkout; without names, all files

The files of a format are written once, by the first version that has it. A later version adds files of what it adds,
by name, and leaves the others alone: they show that it still loads what older versions wrote.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
from sklearn_si.persistence import FORMAT
from sklearn_si.persistence._registry import BY_NAME
from sklearn_si.resampling import DensityRatioWeights, TableResampler
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
from questions import answers  # noqa: E402 - after the path

RNG = np.random.default_rng(0)
N = 60
X0 = RNG.normal(size=(N, 2))
X1 = 1.0 + 0.5 * RNG.normal(size=(N, 2))
LABELS = np.array(["a", "b"] * (N // 2))
Y = X0[:, 0] + RNG.normal(size=N)
FRAME = pd.DataFrame({
    "size": X0[:, 0],
    "kind": np.where(X0[:, 0] + RNG.normal(size=N) > 0, "u", "v"),
    "count": pd.array([1, 2, None, 3, 2] * (N // 5), dtype="Int64"),
})  # fmt: skip

# Networks of few units: the files are for the format, and the suite reads them all.
TINY = {"max_iter": 20, "hidden_layer_sizes": (4,), "random_state": 0}
NORMAL = {**TINY, "base_density": "normal"}
FLOW = InterpolantFlow(max_iter=20, hidden_layer_sizes=(4,))


def flow(**params):
    """A small flow."""
    return InterpolantFlow(**{**TINY, **params})


def table():
    """A small synthesizer."""
    return TableSynthesizer(flow=FLOW, hidden_layer_sizes=(4, 1), max_iter=20, random_state=0)


def resampler():
    """A resampler after a draw."""
    model = TableResampler(table(), random_state=0)
    model.fit_resample(FRAME, np.repeat(["often", "rarely"], [N - 12, 12]))
    return model


# Functions whose names are those of the versions that are installed.
_FOREIGN = ("numpy.", "scipy.")
# name -> a fitted estimator, by a function
MODELS = {
    "flow": lambda: flow().fit(X0),
    "flow_with_condition": lambda: flow().fit(X0, condition=LABELS),
    "flow_with_support": lambda: flow(support="positive").fit(np.exp(X0)),
    "flow_on_circles": lambda: flow(support={0: ("circular", 0, 360)}).fit(
        np.column_stack([360 * RNG.random(N), X0[:, 1]])
    ),
    "flow_of_any_columns": lambda: flow(conditionals="any").fit(X0),
    "flow_of_ensemble": lambda: flow(n_estimators=2).fit(X0),
    "flow_of_two_samples": lambda: flow(coupling="optimal").fit(X0, X1),
    "flow_of_learned_path": lambda: flow(interpolant="learned", base_density=None).fit(X0, X1),
    "flow_distilled": lambda: flow().fit(X0).distill(max_iter=20, log_density=True).set_params(solver="distilled"),
    "diffusion": lambda: InterpolantDiffusion(**NORMAL).fit(X0, X1),
    "diffusion_of_one_sample": lambda: InterpolantDiffusion(**TINY).fit(X0),
    "forecast": lambda: InterpolantDiffusion(start="condition", **TINY).fit(X0, X1),
    "bridge": lambda: SchroedingerBridge(0.3, "network", n_components=1, n_rounds=0, **NORMAL).fit(X0, X1),
    "bridge_of_mixtures": lambda: SchroedingerBridge(0.3, "mixture", n_components=2, **NORMAL).fit(X0, X1),
    "multimarginal": lambda: MultimarginalFlow(**NORMAL).fit([X0, X1, X0 + X1], [0.0, 1.0, 3.0]),
    "table": lambda: table().fit(FRAME),
    "table_raked": lambda: table().fit(FRAME).rake({"kind": {"u": 0.7, "v": 0.3}}, n_rows=2000),
    "imputer": lambda: InterpolantImputer(table(), random_state=0).fit(FRAME),
    "resampler": resampler,
    "codec": lambda: TableCodec(random_state=0).fit(FRAME),
    "transformed_density": lambda: TransformedDensity(StandardScaler(), flow()).fit(X0),
    "pipeline": lambda: make_pipeline(StandardScaler(), flow()).fit(X0),
    "regressor": lambda: InterpolantRegressor(FLOW, "normal", random_state=0).fit(X0, Y),
    "regressor_calibrated": lambda: InterpolantRegressor(FLOW, "normal", calibrate=True, random_state=0).fit(X0, Y),
    "classifier": lambda: InterpolantClassifier(FLOW, random_state=0).fit(X0, LABELS),
    "detector": lambda: DensityOutlierDetector(flow(), random_state=0).fit(X0),
    "ratio_weights": lambda: DensityRatioWeights(max_iter=1, random_state=0).fit(X0, X1),
}  # fmt: skip


def main(names):
    """Write files and answers, and the names that files of this format may say."""
    folder = GOLDEN / f"format{FORMAT}"
    folder.mkdir(exist_ok=True)
    told = folder / "answers.json"
    known = json.loads(told.read_text()) if told.exists() else {}
    for name in names or MODELS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short fits
            model = MODELS[name]()
            known[name] = answers(name, model)
        sklearn_si.save(model, folder / f"{name}.si")
        print(f"{name}: {(folder / f'{name}.si').stat().st_size / 1024:.0f} KB")
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    told.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    own = sorted(name for name in BY_NAME if not name.startswith(_FOREIGN))
    (folder / "names.txt").write_text("\n".join(own) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
