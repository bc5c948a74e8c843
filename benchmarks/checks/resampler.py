"""The checks of imbalanced-learn for TableResampler, on tables of few rows: needs imbalanced-learn.

python benchmarks/checks/resampler.py
"""

import sys
import warnings

from imblearn.utils import estimator_checks
from sklearn.datasets import make_classification

from sklearn_si import InterpolantFlow
from sklearn_si.resampling import TableResampler
from sklearn_si.tables import TableSynthesizer


def few_rows():
    """Rows of three classes: the checks are about forms, and a fit of 1,000 rows of 20 columns is no form."""
    return make_classification(
        n_samples=150, n_features=5, n_classes=3, n_informative=4, n_redundant=0, weights=[0.2, 0.3, 0.5],
        random_state=0,
    )  # fmt: skip


def main():
    warnings.simplefilter("ignore")
    estimator_checks.sample_dataset_generator = few_rows
    flow = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(4,))
    synthesizer = TableSynthesizer(flow=flow, hidden_layer_sizes=(4, 1), max_iter=2, random_state=0)
    n_failed = 0
    for estimator, check in estimator_checks.estimator_checks_generator(TableResampler(synthesizer, random_state=0)):
        try:
            check(estimator)
            print(f"passed  {check.func.__name__}", flush=True)
        except Exception as error:
            n_failed += 1
            print(f"FAILED  {check.func.__name__}: {error}", flush=True)
    sys.exit(n_failed > 0)


if __name__ == "__main__":
    main()
