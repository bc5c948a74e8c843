"""A fit that fails leaves an estimator that was fitted before as it was."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

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

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(40, 2)), columns=["a", "b"])
OTHER = pd.DataFrame(RNG.normal(size=(40, 3)), columns=["x", "y", "z"]).assign(z=np.nan)
FIT = {"max_iter": 2, "hidden_layer_sizes": (4,), "random_state": 0}
FLOW = InterpolantFlow(**FIT)

# estimator, what fit takes beside X, and a question
ESTIMATORS = [
    (FLOW, None, "score_samples"),
    (InterpolantDiffusion(**FIT), None, "score_samples"),
    (TransformedDensity(StandardScaler(), FLOW), None, "score_samples"),
    (DensityOutlierDetector(FLOW, random_state=0), None, "predict"),
    (InterpolantRegressor(flow=FLOW), X["a"], "predict"),
    (InterpolantClassifier(flow=FLOW), X["a"] > 0, "predict"),
    (SchroedingerBridge(method="mixture", base_density=None, random_state=0), X + 1, "transform"),
]


@pytest.mark.parametrize(("estimator", "y", "question"), ESTIMATORS, ids=lambda one: type(one).__name__)
def test_a_failed_refit_leaves_the_former_fit(estimator, y, question):
    ask = getattr(estimator.fit(X) if y is None else estimator.fit(X, y), question)
    answer = np.asarray(ask(X))
    with pytest.raises(ValueError, match=r"NaN|missing"):
        estimator.fit(OTHER) if y is None else estimator.fit(OTHER, OTHER["z"] if np.ndim(y) == 1 else OTHER)
    assert list(estimator.feature_names_in_) == ["a", "b"] and estimator.n_features_in_ == 2
    np.testing.assert_array_equal(ask(X), answer)


def test_a_failed_refit_to_many_samples_leaves_the_former_one():
    flow = MultimarginalFlow(base_density=None, **FIT).fit([X, X + 1])
    answer = flow.transform(X, source=0, target=1)
    with pytest.raises(ValueError, match="NaN"):
        flow.fit([OTHER, OTHER])
    np.testing.assert_array_equal(flow.transform(X, source=0, target=1), answer)
