"""New rows of a rare class by TableResampler and by SMOTE: what classifiers gain from them.

    python benchmarks/studies/resampling.py --data PATH [--tables NAME ...] [--seeds N] [--rare N] [--seconds S]

From each table `--rare` rows of the rare class and `--usual` rows of the other are drawn; classes are made equally
frequent by a method, and classifiers are trained on the result: boosted trees, logistic regression and nearest
neighbours. A line for each method has the mean average precision on up to 4,000 other rows, in which the classes have
their own shares, and the seconds of resampling. SMOTE (SMOTENC where a table has categories) is that of
imbalanced-learn, which has to be installed; "weights" gives the classes equal weights instead of rows.
"""

import argparse
import pathlib
import time
import warnings

import numpy as np
import pandas as pd
import torch
from imblearn.over_sampling import SMOTE, SMOTENC
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from sklearn_si.resampling import TableResampler
from sklearn_si.tables import TableSynthesizer

# Tables of the folder tables/, and the name of the class; the rare class is that of fewer rows.
TABLES = {"shoppers": "Revenue", "default": "default payment next month", "adult": "income_over_50k"}
TEST_ROWS = 4000


def rows_of(path, target, args, seed):
    """Training and test rows: frames of the columns, and arrays of 0 and 1."""
    frame = pd.read_csv(path).dropna().sample(frac=1, random_state=seed)
    y = (frame[target] == frame[target].value_counts().idxmin()).to_numpy().astype(int)
    X = frame.drop(columns=target)
    train = np.concatenate([np.flatnonzero(y == 1)[: args.rare], np.flatnonzero(y == 0)[: args.usual]])
    rest = np.setdiff1d(np.arange(len(y)), train)[:TEST_ROWS]
    words = X.select_dtypes(exclude="number").columns
    often = {name: X[name].iloc[train].value_counts().index for name in words}
    for name in words:  # what the training rows have not seen is their most frequent word
        X[name] = X[name].astype(str).where(X[name].isin(often[name]), str(often[name][0]))
    return X.iloc[train], y[train], X.iloc[rest], y[rest]


def coded():
    """Numbers scaled, words as columns of 0 and 1."""
    return make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_exclude="number")),
    )


def smote(X, y, seed):
    """Rows by SMOTE, of scaled numbers and of words as they are."""
    words = X.select_dtypes(exclude="number").columns
    scale = StandardScaler().set_output(transform="pandas")
    numbers = scale.fit_transform(X.drop(columns=words))
    both = pd.concat([numbers, X[words]], axis=1)
    places = [both.columns.get_loc(name) for name in words]
    sampler = SMOTENC(places, random_state=seed) if len(words) else SMOTE(random_state=seed)
    more, y = sampler.fit_resample(both, y)
    back = pd.DataFrame(scale.inverse_transform(more[numbers.columns]), columns=numbers.columns)
    return pd.concat([back, more[words]], axis=1)[X.columns], y


def resampled(method, X, y, args, seed):
    """The rows that a method gives."""
    if method == "smote":
        return smote(X, y, seed)
    if method == "ours":
        return TableResampler(TableSynthesizer(max_time=args.seconds), random_state=seed).fit_resample(X, y)
    return X, y


def scores(method, rows, test, seed):
    """Average precision of the classifiers."""
    (X, y), (X_test, y_test) = rows, test
    weight = compute_sample_weight("balanced", y) if method == "weights" else None
    models = {
        "boosting": (make_pipeline(coded(), HistGradientBoostingClassifier(random_state=seed)), True),
        "logistic": (make_pipeline(coded(), LogisticRegression(max_iter=2000)), True),
        "neighbours": (make_pipeline(coded(), KNeighborsClassifier(15)), False),
    }
    found = {}
    for name, (model, takes_weights) in models.items():
        given = {f"{model.steps[-1][0]}__sample_weight": weight} if takes_weights else {}
        found[name] = average_precision_score(y_test, model.fit(X, y, **given).predict_proba(X_test)[:, 1])
    return found


def main():
    """Print a line for each table and method: means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder above tables/")
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--methods", nargs="*", default=["none", "weights", "smote", "ours"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rare", type=int, default=80)
    parser.add_argument("--usual", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the fit of a synthesizer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.tables:
        path = pathlib.Path(args.data) / f"tables/{name}.csv.gz"
        for method in args.methods:
            found, seconds = [], 0.0
            for seed in range(args.seeds):
                X, y, *test = rows_of(path, TABLES[name], args, seed)
                began = time.perf_counter()
                rows = resampled(method, X, y, args, seed)
                seconds += time.perf_counter() - began
                found.append(scores(method, rows, test, seed))
            table = pd.DataFrame(found)
            told = ", ".join(f"{c} {table[c].mean():.3f} ({table[c].std():.3f})" for c in table)
            print(f"{name:9} {method:8} {told}, {seconds / args.seeds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
