"""Where an estimator is a part of something larger: routed metadata, searches on dask, interrupted fits, skops."""

import copy
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge, TransformedDensity
from sklearn_si._training import loop as _training
from sklearn_si._utils import links as _links
from sklearn_si.tables import TableCodec, TableSynthesizer

OLD = parse_version(sklearn.__version__) < parse_version("1.8")
TINY = {"hidden_layer_sizes": (8,), "max_iter": 60, "random_state": 0}
RNG = np.random.default_rng(0)
LABELS = RNG.choice(["near", "far"], size=200)
X = RNG.normal(size=(200, 2)) + np.where(LABELS == "far", 6.0, 0.0)[:, None]
WEIGHTS = RNG.uniform(size=200)
FRAME = pd.DataFrame({"x": X[:, 0], "k": LABELS})


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_a_condition_goes_through_a_pipeline():
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY)).fit(X, condition=LABELS)
    flow, rows = pipe[-1], pipe[:-1].transform(X)
    assert flow.condition_codec_ is not None
    assert pipe.score(X, condition=LABELS) == pytest.approx(flow.score(rows, condition=LABELS))
    np.testing.assert_array_equal(pipe.transform(X, condition=LABELS), flow.transform(rows, condition=LABELS))
    weighted = pipe.score(X, condition=LABELS, sample_weight=WEIGHTS)
    assert weighted == pytest.approx(flow.score(rows, sample_weight=WEIGHTS, condition=LABELS))


@pytest.mark.usefixtures("routing")
def test_a_condition_goes_through_cross_validation():
    told = cross_validate(InterpolantFlow(**TINY), X, params={"condition": LABELS}, cv=2)["test_score"]
    # params: scikit-learn 1.6 does not take None where metadata is routed
    untold = cross_validate(InterpolantFlow(**TINY), X, params={}, cv=2)["test_score"]
    assert told.mean() > untold.mean() + 0.3  # which of the two groups a row is of, is worth log 2


@pytest.mark.skipif(OLD, reason="before 1.8, scikit-learn routes nothing to the score of a Pipeline in a search")
@pytest.mark.usefixtures("routing")
def test_a_condition_goes_through_a_search_of_pipelines():
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY))
    search = GridSearchCV(pipe, {"interpolantflow__activation": ["silu", "tanh"]}, cv=2).fit(X, condition=LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    by_hand = search.best_estimator_.score(X, condition=LABELS)
    assert search.score(X, condition=LABELS) == pytest.approx(by_hand)


@pytest.mark.usefixtures("routing")
def test_a_condition_that_nobody_asked_for_is_refused():
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY).set_fit_request(condition=None))
    with pytest.raises(ValueError, match="condition"):
        pipe.fit(X, condition=LABELS)


SHORT = {**TINY, "max_iter": 10, "preprocessing": "standardize", "ode_tol": 0.05}
CONDITIONAL = {
    "flow": InterpolantFlow(**SHORT),
    "diffusion": InterpolantDiffusion(**SHORT),
    "transformed": TransformedDensity(StandardScaler(), InterpolantFlow(**SHORT)),
}


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("name", CONDITIONAL)
def test_weights_and_conditions_reach_fit_and_score_without_requests(name):
    """The scores of a search are those of a loop by hand."""
    model, given = CONDITIONAL[name], {"condition": LABELS, "sample_weight": WEIGHTS}
    scores = cross_validate(model, X, params=given, cv=KFold(2), error_score="raise")["test_score"]
    grid = {"estimator__ode_tol" if name == "transformed" else "ode_tol": [0.05]}
    search = GridSearchCV(model, grid, cv=KFold(2), refit=False, error_score="raise").fit(X, **given)
    by_hand = []
    for train, test in KFold(2).split(X):
        fitted = clone(model).fit(X[train], condition=LABELS[train], sample_weight=WEIGHTS[train])
        by_hand.append(fitted.score(X[test], condition=LABELS[test], sample_weight=WEIGHTS[test]))
    np.testing.assert_array_equal(scores, by_hand)
    assert search.cv_results_["mean_test_score"] == pytest.approx(np.mean(by_hand))


@pytest.mark.usefixtures("routing")
def test_weights_reach_a_table_in_cross_validation():
    table = TableSynthesizer(max_iter=5, hidden_layer_sizes=(8, 1), random_state=0)
    scores = cross_validate(table, FRAME, params={"sample_weight": WEIGHTS}, cv=KFold(2))["test_score"]
    train, test = next(KFold(2).split(FRAME))
    fitted = clone(table).fit(FRAME.iloc[train], sample_weight=WEIGHTS[train])
    assert scores[0] == fitted.score(FRAME.iloc[test], sample_weight=WEIGHTS[test])


@pytest.mark.parametrize("how", ["search", "pipeline"])
def test_without_routing_the_error_says_how_to_switch_it_on(how):
    with pytest.raises(ValueError, match=r"Pipeline, .*sklearn\.set_config\(enable_metadata_routing=True\)"):
        if how == "search":
            search = GridSearchCV(InterpolantFlow(**TINY), {"ode_tol": [1e-3]}, cv=2, error_score="raise")
            search.fit(X, condition=LABELS)
        else:
            pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY))
            pipe.fit(X, interpolantflow__condition=LABELS).score(X)


def test_a_search_on_dask_is_the_serial_search():
    distributed = pytest.importorskip("distributed")
    search = GridSearchCV(InterpolantFlow(**TINY), {"activation": ["silu", "tanh"]}, cv=2)
    serial = search.fit(X).cv_results_["mean_test_score"]
    rows = search.best_estimator_.sample(5)
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        search.fit(X)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], serial)
    np.testing.assert_array_equal(search.best_estimator_.sample(5), rows)


@pytest.mark.filterwarnings("ignore:Training was interrupted")
@pytest.mark.parametrize("samples", [(X,), (X, X + 1.0)], ids=["density", "bridge"])
def test_an_interrupted_fit_goes_on_where_it_was(samples, monkeypatch):
    reports = []

    def interrupted(history):
        reports.append(history.n_iter)
        raise KeyboardInterrupt

    model = InterpolantFlow(hidden_layer_sizes=(8,), max_iter=1000, preprocessing="whiten", verbose=1,
                            base_density="normal", random_state=0)  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(_training, "_report", interrupted)
        model.fit(*samples)
    assert model.n_iter_ == reports[0] == 100
    before, target = model.score(samples[-1]), samples[-1]
    model.set_params(warm_start=True, verbose=0).fit(*samples)
    assert model.n_iter_ > 100
    assert model.loss_curve_[0] != model.loss_curve_[1]
    assert len(model.loss_curve_) > 1
    assert model.score(target) > before - 0.02


MODELS = {
    "flow": lambda: InterpolantFlow(**TINY).fit(X),
    "diffusion": lambda: InterpolantDiffusion(base_density="normal", **TINY).fit(X, X + 1),
    "bridge": lambda: SchroedingerBridge(
        method="network", n_components=1, n_rounds=0, base_density="normal", **TINY
    ).fit(X, X + 1),
    "table": lambda: TableSynthesizer(max_iter=20, random_state=0).fit(FRAME),
}


@pytest.mark.parametrize("name", MODELS)
def test_skops_writes_and_reads_a_fitted_model(name):
    skops = pytest.importorskip("skops.io")
    model, rows = MODELS[name](), FRAME if name == "table" else X
    written = skops.dumps(model)
    again = skops.loads(written, trusted=skops.get_untrusted_types(data=written))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    assert "torch" not in " ".join(skops.get_untrusted_types(data=written))


def test_pictures_link_the_page_of_the_estimator(monkeypatch):
    estimators = [InterpolantFlow(), TransformedDensity(StandardScaler(), InterpolantFlow()), TableCodec()]
    monkeypatch.setattr(_links, "documentation_url", lambda: "")
    assert [e._get_doc_link() for e in estimators] == ["", "", ""]
    assert 'href="https://scikit-learn.org' not in estimators[0]._repr_html_()
    monkeypatch.setattr(_links, "documentation_url", lambda: "https://here.invalid/docs")
    pages = ["sklearn_si.InterpolantFlow", "sklearn_si.TransformedDensity", "sklearn_si.tables.TableCodec"]
    assert [e._get_doc_link() for e in estimators] == [f"https://here.invalid/docs/generated/{p}.html" for p in pages]
    assert pages[0] in estimators[0]._repr_html_()


def test_the_address_of_the_documentation_is_that_of_the_package(monkeypatch):
    package = {"Project-URL": ["Source, https://there.invalid", "Documentation, https://here.invalid/docs/"]}
    monkeypatch.setattr(_links.importlib.metadata, "metadata", lambda name: SimpleNamespace(get_all=package.get))
    _links.documentation_url.cache_clear()
    assert _links.documentation_url() == "https://here.invalid/docs"
    package.clear()
    _links.documentation_url.cache_clear()
    assert _links.documentation_url() == ""


def test_networks_of_a_factory_are_copied_as_they_are():
    torch = pytest.importorskip("torch")

    class Own(torch.nn.Module):
        def __init__(self, n_features):
            super().__init__()
            self.layer = torch.nn.Linear(n_features, n_features)

        def forward(self, t, x, condition=None):
            return self.layer(x)

    model = InterpolantFlow(network=lambda d, c: Own(d), max_iter=5, random_state=0).fit(X)
    again = copy.deepcopy(model)
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert again.network_ is not model.network_
    assert again.network_ is again.model_.learned["velocity"]
