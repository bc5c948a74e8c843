"""Any parameter changed after fit that is not declared as one that may be changes no answer, or says to fit again."""

import inspect
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import PowerTransformer, StandardScaler

from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    MultimarginalFlow,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si._estimators import diagnostics
from sklearn_si._utils.after_fit import AFTER_FIT
from sklearn_si.networks import MLP
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

RNG = np.random.default_rng(0)
X0 = RNG.normal(size=(60, 2))
X1 = 2.0 + 0.5 * RNG.normal(size=(60, 2))
CONDITION = X1[:, :1] + RNG.normal(size=(60, 1))
LEVEL = RNG.integers(3, size=60)
TABLE = pd.DataFrame({
    "level": np.array(["a", "b", "c"])[LEVEL],
    "x": LEVEL + RNG.normal(size=60),
    "part": np.where(RNG.random(60) < 0.3, np.nan, RNG.normal(size=60)),
})  # fmt: skip
GAPS = TABLE[:8].assign(level=[None, "a"] * 4)
# an array with a column of nothing but gaps
EMPTY = np.column_stack([X0, np.full(60, np.nan)])

# the answers are compared to the bit, which a loose tolerance does not make easier
TINY = {"max_iter": 3, "hidden_layer_sizes": (4,), "ode_tol": 0.1, "random_state": 0}
SMALL = {**TINY, "preprocessing": "standardize"}
SMALL_BRIDGE = {**TINY, "base_density": "normal", "n_rounds": 0}
NORMAL = {**SMALL, "base_density": "normal"}
TINY_TABLE = {"hidden_layer_sizes": (4, 1), "max_iter": 3, "random_state": 0}
TINY_FLOW = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(4,), ode_tol=0.1)


def synthesizer():
    return TableSynthesizer(flow=TINY_FLOW, **TINY_TABLE)


# The models that are asked: what makes them, what they are fitted to, and what their methods are given.
MODELS = {
    "flow": (lambda: InterpolantFlow(**SMALL, condition_dropout=0.2), (X1,), {"condition": CONDITION}),
    "ensemble": (lambda: InterpolantFlow(**SMALL, n_estimators=2), (X1,), {}),
    "flow of any columns": (lambda: InterpolantFlow(**SMALL, conditionals="any"), (X1,), {}),
    "flow of two samples": (lambda: InterpolantFlow(**NORMAL), (X0, X1), {}),
    "diffusion": (lambda: InterpolantDiffusion(**SMALL, n_steps=4), (X1,), {}),
    "diffusion of two samples": (lambda: InterpolantDiffusion(**NORMAL, n_steps=4), (X0, X1), {}),
    "mirror": (lambda: InterpolantDiffusion("mirror", **SMALL, n_steps=4, noise_level=0.3), (X1,), {}),
    "forecast": (lambda: InterpolantDiffusion(**SMALL, start="condition", n_steps=4), (X0, X1), {}),
    "bridge": (lambda: SchroedingerBridge(0.3, "network", n_steps=4, **SMALL_BRIDGE), (X0, X1), {}),
    "mixture bridge": (lambda: SchroedingerBridge(0.3, "mixture", n_components=2, **SMALL_BRIDGE), (X0, X1), {}),
    "many samples": (lambda: MultimarginalFlow(**NORMAL), ([X0, X1, X1 + X0], [0.0, 1.0, 3.0]), {}),
    "transformed": (lambda: TransformedDensity(PowerTransformer(), InterpolantFlow(**SMALL)), (X1,), {}),
    "regressor": (lambda: InterpolantRegressor(TINY_FLOW, "normal", random_state=0), (X1, X1[:, 0]), {}),
    "classifier": (lambda: InterpolantClassifier(TINY_FLOW, random_state=0), (X1, LEVEL), {}),
    "detector": (lambda: DensityOutlierDetector(GaussianMixture(), random_state=0), (X1,), {}),
    "codec": (lambda: TableCodec(random_state=0), (TABLE,), {}),
    "synthesizer": (synthesizer, (TABLE,), {}),
    "imputer": (lambda: InterpolantImputer(synthesizer(), random_state=0), (TABLE,), {}),
    "imputer of an array": (lambda: InterpolantImputer(synthesizer(), random_state=0), (EMPTY,), {}),
}  # fmt: skip

# Other values of every parameter: the first that is not the model's own is set.
OTHERS = {
    "interpolant": ["trigonometric", "mirror"],
    "gamma": ["sine", None],
    "gamma_scale": [7.0, 1.0],
    "coupling": ["optimal", "paired"],
    "preprocessing": ["whiten", None],
    "base_density": [None, "standard_normal"],
    "target_density": ["flow", "transport"],
    "time_distribution": ["uniform", "arcsine"],
    "fields": ["b", "b+s"],
    "condition_dropout": [0.5, 0.0],
    "condition_kinds": [{0: "categorical"}, None],
    "start": ["condition", "base"],
    "network": [lambda d, k: MLP(d, k, (3,)), "mlp"],
    "hidden_layer_sizes": [(5,), "auto"],
    "activation": ["tanh", "silu"],
    "dropout": [0.5, "auto"],
    "bf16": [True, False],
    "batch_size": [7, "auto"],
    "learning_rate_init": [0.5],
    "max_iter": [1],
    "max_time": [9.0],
    "tol": [0.5],
    "n_iter_no_change": [1],
    "early_stopping": [False],
    "validation_fraction": [0.4],
    "warm_start": [True],
    "checkpoint": ["of_the_next_fit.ckpt"],
    "memory": ["of_the_next_fits"],
    "dequantize": ["auto", None],
    "calibrate": [True, False],
    "support": ["positive", {0: (-99, 99)}],
    "conditionals": ["any", None],
    "constraints": [None],
    "verbose": [3],
    "base": ["boosting"],
    "robust": [True],
    "calibration_fraction": [0.5],
    "n_estimators": [2, 3],
    "epsilon": [2.0],
    "method": ["mixture", "network"],
    "n_components": [1],
    "n_rounds": [3],
    "kinds": [{"x": "discrete"}],
    "min_frequency": [0.4],
    "flow": [InterpolantFlow(noise_level=0.5, solver="euler")],
    "synthesizer": [TableSynthesizer()],
    "random_state": [5],
    "transformer": [StandardScaler()],
    "estimator": [InterpolantFlow(solver="euler", n_steps=1)],
    # of the estimators inside
    "transformer__method": ["box-cox"],
    "transformer__standardize": [False],
    "transformer__copy": [False],
    "flow__noise_level": [0.5],
    "estimator__noise_level": [0.5],
    "estimator__n_steps": [1],
    "estimator__ode_tol": [0.5],
    "synthesizer__dropout": [0.5],
    "synthesizer__random_state": [5],
    "synthesizer__flow__noise_level": [0.5],
}
# Other values of those that may be changed.
CHANGES = {
    "contamination": [0.3],
    "noise_level": [0.6, 0.2],
    "noise_schedule": ["constant"],
    "n_steps": [2],
    "solver": ["euler", "euler-maruyama"],
    "ode_tol": [1e-6],
    "guidance": [2.0],
    "device": ["cpu"],
    "priors": [[0.8, 0.1, 0.1]],
    "random_state": [5],
    "likelihood": ["sde"],
    "unseen": ["unknown"],
    "dequantize": [False],
    "average": [3],
    "keep_empty_features": [True],
}

# What some methods are given: codes and values of rows of the table, as the codec of the model has them.
CODED = TableCodec(random_state=0).fit(TABLE).encode(TABLE[:8], random_state=1)
MATRIX = TableCodec(random_state=0).fit(TABLE).transform(TABLE[:8])

# Methods that learn, or speak of parameters.
LEARNING = {"fit_predict", "fit", "fit_transform", "distill", "rectify", "tune_noise_level"}
# Methods that tell of the parameters which may be changed.
TELLING = {"sample", "score_samples", "transform", "optimal_noise_level", "decision_function"}
PARAMETERS = {"get_params", "set_params", "get_metadata_routing", "set_output", "set_callbacks"}


class Reference:
    """Fields of a standard normal, which a model is measured against."""

    def velocity(self, X, t):
        return 0.1 * X

    def score_function(self, X, t):
        return -X


def questions(name, model, given):
    """Every public method of a model with arguments of its own."""
    rows, one = ({key: value[:n] for key, value in given.items()} for n in (5, 1))
    a, b, table = X0[:5], X1[:5], TABLE[:8]
    ends = (X0[:20], X1[:20]) if len(MODELS[name][1]) == 2 else (X1[:20],)
    unseen = TABLE[:4].assign(level=["a", "z", "b", "c"])
    reference = {"reference": Reference()}
    of_tables = {
        "sample": lambda: (model.sample(6), model.sample(given=table[["level"]])),
        "score_samples": lambda: model.score_samples(table),
        "score": lambda: model.score(table),
        "impute": lambda: model.impute(GAPS, n_draws=2),
        "predict_proba": lambda: model.predict_proba(table, target="level"),
        "levels": lambda: model.levels("level"),
        "rake": lambda: model.rake({"level": {"a": 0.5, "b": 0.3, "c": 0.2}}, n_rows=300).sample(6),
    }
    of_codecs = {
        "transform": lambda: (model.transform(table), attempted(lambda: model.transform(unseen))),
        "encode": lambda: (model.encode(table), attempted(lambda: model.encode(unseen))),
        "decode": lambda: model.decode(*CODED, random_state=1),
        "inverse_transform": lambda: model.inverse_transform(MATRIX),
        "log_abs_det_jacobian": lambda: model.log_abs_det_jacobian(table),
        "get_feature_names_out": lambda: model.get_feature_names_out(),
    }
    of_rows = {
        "sample": lambda: model.sample(6, **rows_for_sample(name, rows)),
        "sample_plan": lambda: (model.sample_plan(a), model.sample_plan(a, direction="backward")),
        "resample": lambda: model.resample(b, **rows),
        "transform": lambda: model.transform(b, **rows),
        "inverse_transform": lambda: model.inverse_transform(b, **rows),
        "score_samples": lambda: (
            model.score_samples(b, return_error=True, **rows),
            model.score_samples(b, t=0.5, **rows),
        ),
        "score": lambda: model.score(b, **rows),
        "velocity": lambda: model.velocity(b, 0.3, **rows),
        "score_function": lambda: model.score_function(b, 0.3, **rows),
        "denoiser": lambda: model.denoiser(b, 0.3, **rows),
        "predict_target": lambda: model.predict_target(b, 0.3, **rows),
        "interpolate": lambda: model.interpolate(a, b, 0.3),
        "trajectory": lambda: (model.trajectory(b, 3, **rows), model.trajectory(b, 3, noise_level=0.2, **rows)),
        "log_density_gradient": lambda: model.log_density_gradient(b, **rows),
        "tilt": lambda: model.tilt(lambda X: X[:, 0] / 10, n_rows=200, **one).sample(5),
        "log_density_bound": lambda: model.log_density_bound(b, n_paths=3, **rows),
        "density_ratio": lambda: model.density_ratio(b, **rows),
        "importance_weights": lambda: model.importance_weights(b, **rows),
        "cross_entropy": lambda: model.cross_entropy(b, **rows),
        "diagnose": lambda: model.diagnose(*ends),
        "fisher_divergence": lambda: model.fisher_divergence(*ends),
        "kl_bound": lambda: model.kl_bound(*ends, **reference),
        "optimal_noise_level": lambda: model.optimal_noise_level(*ends, **reference),
        "get_feature_names_out": lambda: model.get_feature_names_out(),
    }
    of_imputers = {
        "transform": lambda: model.transform(EMPTY[:6] if name.endswith("array") else GAPS),
        "get_feature_names_out": lambda: model.get_feature_names_out(),
    }
    of_regressors = {
        "predict": lambda: model.predict(b, return_std=True),
        "predict_quantiles": lambda: model.predict_quantiles(b, [0.2, 0.7]),
        "predict_interval": lambda: model.predict_interval(b),
        "predict_cdf": lambda: model.predict_cdf(b, b[:, 0]),
        "predict_log_density": lambda: model.predict_log_density(b, b[:, 0]),
        "sample": lambda: model.sample(b, 2),
        "diagnose": lambda: model.diagnose(b, b[:, 0]),
        "score": lambda: model.score(b, b[:, 0]),
    }
    of_classifiers = {
        "predict": lambda: model.predict(b),
        "predict_proba": lambda: model.predict_proba(b),
        "predict_log_proba": lambda: model.predict_log_proba(b),
        "score_samples": lambda: model.score_samples(b),
        "abstains": lambda: model.abstains(b, share=0.5),
        "score": lambda: model.score(b, LEVEL[:5]),
    }
    of_detectors = {
        "score_samples": lambda: model.score_samples(b),
        "decision_function": lambda: model.decision_function(b),
        "predict": lambda: model.predict(b),
        "p_values": lambda: model.p_values(b),
        "attributions": lambda: model.attributions(b),
    }
    of_many = {
        "sample": lambda: model.sample(6, time=0.5),
        "barycenter": lambda: model.barycenter([0.5, 0.25, 0.25], 6),
        "transform": lambda: model.transform(a, 0.0, 2.0),
        "trajectory": lambda: model.trajectory(a, [0.0, 0.5, 2.0]),
        "score_samples": lambda: model.score_samples(b, time=2.0, return_error=True),
        "score": lambda: model.score(b),
        "get_feature_names_out": lambda: model.get_feature_names_out(),
    }
    by_name = {
        "many samples": of_many,
        "regressor": of_regressors,
        "classifier": of_classifiers,
        "detector": of_detectors,
    }
    if name in by_name:
        return by_name[name]
    of_any = {
        "sample": lambda: (model.sample(6), model.sample(given=[[1.5, np.nan], [np.nan, 2.0]])),
        "score_samples": lambda: (model.score_samples(b, given=[1], return_error=True), model.score_samples(b)),
    }
    if name == "flow of any columns":
        return of_rows | of_any
    return {"TableSynthesizer": of_tables, "TableCodec": of_codecs, "InterpolantImputer": of_imputers}.get(
        type(model).__name__, of_rows
    )


def rows_for_sample(name, rows):
    """The condition of a draw of six rows."""
    return {"condition": X0[:6]} if name == "forecast" else dict.fromkeys(rows, CONDITION[:6])


def attempted(question):
    """The answer, or the error that it raises."""
    try:
        return question()
    except ValueError as error:
        return error


def public_methods(model):
    """Names of the public methods of a model that neither learn nor speak of parameters."""
    names = {name for name, _ in inspect.getmembers(type(model), inspect.isfunction) if not name.startswith("_")}
    return {n for n in names - LEARNING - PARAMETERS if not (n.startswith("set_") and n.endswith("_request"))}


def bits(answer):
    """What two answers have to share to be the same to the bit."""
    if isinstance(answer, Exception):
        return type(answer).__name__, re.sub(r"\d\S*", "", str(answer))[:40]
    if isinstance(answer, pd.DataFrame):
        return tuple((str(name), str(answer[name].dtype), tuple(map(repr, answer[name]))) for name in answer)
    if isinstance(answer, dict):
        return tuple((key, bits(value)) for key, value in answer.items())
    if isinstance(answer, (tuple, list)):
        return tuple(map(bits, answer))
    if hasattr(answer, "__dict__") and not isinstance(answer, np.generic):
        return bits(vars(answer))
    array = np.asarray(answer)
    return array.dtype.str, array.shape, array.tobytes() if array.dtype.kind != "O" else repr(array.tolist())


def asked(name, model, given, methods=None):
    """The answers of a model to all questions (or to some methods), errors among them."""
    asks = {
        method: ask for method, ask in questions(name, model, given).items() if methods is None or method in methods
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {method: attempted(asks[method]) for method in sorted(asks) if hasattr(model, method)}


@pytest.fixture(scope="module", autouse=True)
def few_times():
    """Integrals over the time take few times: what they are compared to is computed alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnostics, "_N_TIMES", 3)
        patch.setattr(diagnostics, "_N_FISHER_TIMES", 2)
        yield


@pytest.fixture(scope="module")
def fitted():
    """Each model once, with its answers."""
    known = {}

    def get(name):
        if name not in known:
            make, samples, given = MODELS[name]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = make().fit(*samples, **given)
            answers = asked(name, model, given)
            assert sum(not isinstance(a, Exception) for a in answers.values()) >= min(2, len(answers))
            known[name] = model, {method: bits(answer) for method, answer in answers.items()}
        return known[name]

    return get


def parameters(name):
    """The parameters of a model and, of the estimators inside, those that stand in the tables."""
    made = MODELS[name][0]()
    return [p for p in made.get_params(deep=True) if "__" not in p or p in OTHERS], made


def other(values, current):
    """The first value that is not the one of the model."""
    return next(value for value in values if not (type(value) is type(current) and value == current))


def fixed(name):
    """The parameters of a model that may not be changed after fit."""
    return [p for p in parameters(name)[0] if p not in AFTER_FIT[type(MODELS[name][0]()).__name__]]


def changed_by(name, values, fitted, methods=None):
    """The methods whose answers change with some parameters, but for those that say to fit again."""
    model, expected = fitted(name)
    before = {parameter: model.get_params()[parameter] for parameter in values}
    model.set_params(**values)
    try:
        answers = asked(name, model, MODELS[name][2], methods)
    finally:
        model.set_params(**before)
    differ = [method for method, answer in answers.items() if bits(answer) != expected[method]]
    return [method for method in differ if not re.search("fit again|refit", str(answers[method]))], differ


@pytest.mark.parametrize("name", MODELS)
def test_all_other_parameters_change_no_answer_or_say_to_fit_again(name, fitted):
    current = fitted(name)[0].get_params()
    values = {parameter: other(OTHERS[parameter], current[parameter]) for parameter in fixed(name)}
    wrong = {}
    for inside in (False, True):  # of the estimators inside, which are parameters themselves
        some = {p: value for p, value in values.items() if ("__" in p) == inside}
        # all at once; one by one for the methods whose answer is another one, so that no error hides what follows it
        differ = changed_by(name, some, fitted)[1] if some else []
        if differ:
            wrong |= {p: changed_by(name, {p: value}, fitted, differ)[0] for p, value in some.items()}
    assert not {p: methods for p, methods in wrong.items() if methods}


def test_the_parameters_that_are_declared_are_followed(fitted):
    """Each by some answer of some model; a device is where the answers are computed, which changes none."""
    followed = {(cls, "device") for cls, parameters in AFTER_FIT.items() if "device" in parameters}
    declared = {(cls, parameter) for cls, parameters in AFTER_FIT.items() for parameter in parameters}
    for name, (make, _, _) in MODELS.items():
        cls = type(make()).__name__
        current = fitted(name)[0].get_params()
        for parameter in AFTER_FIT[cls]:
            if (cls, parameter) not in followed:
                value = {parameter: other(CHANGES[parameter], current[parameter])}
                followed |= {(cls, parameter)} if changed_by(name, value, fitted, TELLING)[1] else set()
    assert followed == declared


@pytest.mark.parametrize("name", MODELS)
def test_every_public_method_and_every_parameter_is_asked(name, fitted):
    model, answers = fitted(name)
    assert public_methods(model) - {"plot"} <= set(answers) | {
        m for m in public_methods(model) if not hasattr(model, m)
    }
    assert set(parameters(name)[0]) <= set(OTHERS) | set(CHANGES)


@pytest.mark.parametrize("name", MODELS)
def test_docstrings_say_which_parameters_may_be_changed(name):
    cls = type(MODELS[name][0]())
    documented = re.split(r"\n    (?=\w[\w, ]* : )", inspect.cleandoc(cls.__doc__).replace("\n", "\n    "))[1:]
    said = {block.split(" : ")[0] for block in documented if "May be changed after fit" in " ".join(block.split())}
    assert said == set(AFTER_FIT[cls.__name__])
