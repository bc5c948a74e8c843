"""A density, a bridge and a search on one table.

The table is scikit-learn's breast cancer set: of each cell nucleus the eight "mean" columns without exact zeros
(concavity and concave points contain some, and a column that repeats a value has no bounded density).
All three parts are fitted to the same training rows, and evaluated once on the test rows.

1. Density: the mean log-likelihood of test rows under a flow without tuning, and under two tuned densities.
2. Bridge: malignant rows are moved to the distribution of the benign ones.
3. Search: the interpolant and the noise level of a diffusion, chosen by how close its samples are to held-out rows.
   The noise level is not learned: with `memory`, its candidates share one training.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.metrics import energy_distance, sample_scorer

COLUMNS = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "symmetry",
    "fractal dimension",
]


def load_rows():
    """Training and test rows, and whether each is malignant."""
    data = load_breast_cancer()
    names = data.feature_names.tolist()
    X = data.data[:, [names.index(f"mean {name}") for name in COLUMNS]]
    return train_test_split(X, data.target == 0, stratify=data.target, random_state=0)


def mean_and_error(values):
    """The mean with its standard error, as text."""
    return f"{values.mean():.2f} +- {values.std() / np.sqrt(len(values)):.2f}"


def compare_densities(X_train, X_test):
    """Print the mean log-likelihood of test rows, in the same standardised units for all; return rows of the flow."""
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    mixture_grid = {
        "n_components": range(1, 9),
        "covariance_type": ["full", "tied", "diag"],
        "reg_covar": [1e-6, 1e-3],
    }
    models = {
        "InterpolantFlow, defaults": InterpolantFlow(random_state=0),
        "GaussianMixture, tuned": GridSearchCV(
            GaussianMixture(random_state=0), mixture_grid
        ),
        "KernelDensity, tuned": GridSearchCV(
            KernelDensity(), {"bandwidth": np.logspace(-1.5, 0.5, 41)}
        ),
    }
    print(
        f"1. Mean log-likelihood of {len(X_test)} test rows (nats, higher is better), and the flow's lead"
    )
    for name, model in models.items():
        model.fit(X_train)
        density = getattr(model, "best_estimator_", model).score_samples(X_test)
        if isinstance(model, InterpolantFlow):
            flow, flow_density = model, density
        print(
            f"   {name:<27}{mean_and_error(density):>16}{mean_and_error(flow_density - density):>16}"
        )
    return scaler.inverse_transform(flow.sample(len(X_train)))


def move_malignant(X_train, X_test, malignant_train, malignant_test):
    """Print how far malignant test rows are from benign ones before and after the bridge; return the moved rows."""
    X0, X1 = X_train[malignant_train], X_train[~malignant_train]
    # base_density=None: this model is not asked for a density, so none is fitted to the malignant rows.
    bridge = InterpolantFlow(base_density=None, random_state=0).fit(X0, X1)
    moved = bridge.transform(X_test[malignant_test])
    benign = X_test[~malignant_test]
    print("2. Energy distance to benign test rows (0: equal distributions)")
    print(
        f"   malignant test rows        {energy_distance(X_test[malignant_test], benign):8.3f}"
    )
    print(f"   the same rows, moved       {energy_distance(moved, benign):8.3f}")
    print(f"   benign training rows       {energy_distance(X1, benign):8.3f}")
    return moved


def search(X_train, X_test, folder):
    """Print minus the energy distance between sampled and held-out rows, for each candidate of a grid search."""
    # memory: candidates that differ in their noise level alone share their fits, which are kept in the folder.
    diffusion = InterpolantDiffusion(
        max_iter=300, n_steps=50, memory=folder, random_state=0
    )
    grid = {
        "interpolantdiffusion__interpolant": ["linear", "trigonometric"],
        "interpolantdiffusion__noise_level": [0.0, 1.0, 4.0],
    }
    model, n_folds = make_pipeline(StandardScaler(), diffusion), 3
    found = GridSearchCV(model, grid, scoring=sample_scorer, cv=n_folds).fit(X_train)
    results = found.cv_results_
    n_fits = n_folds * len(results["params"]) + 1  # the last one is on all rows
    n_trained = len(list(Path(folder).rglob("*.si")))
    print(
        f"3. Minus the energy distance between sampled and held-out rows, mean of {n_folds} folds +- standard error"
    )
    print("   (0 is the mean score of a perfect model; values above 0 are noise)")
    scores = results["mean_test_score"]
    errors = results["std_test_score"] / np.sqrt(n_folds - 1)
    for params, mean, error in zip(results["params"], scores, errors, strict=True):
        interpolant, noise_level = params.values()
        print(
            f"   {interpolant:<15}noise_level={noise_level:<8}{mean:8.3f} +- {error:.3f}"
        )
    print(f"   best of them, refitted, on test rows{found.score(X_test):7.3f}")
    print(
        f"   Trained {n_trained} times for {n_fits} fits: the noise levels of an interpolant share one model a fold."
    )


def save_picture(
    X_train, malignant, sampled, X_test, malignant_test, moved, path="quickstart.png"
):
    """Two columns of the table: real and sampled rows, and malignant rows before and after the bridge."""
    try:
        import matplotlib
    except ImportError:
        print("No picture: matplotlib is not installed (pip install matplotlib).")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    i, j = COLUMNS.index("radius"), COLUMNS.index("smoothness")
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained"
    )
    left.scatter(X_train[:, i], X_train[:, j], s=8, label="real rows")
    left.scatter(sampled[:, i], sampled[:, j], s=8, label="rows of the flow")
    before = X_test[malignant_test]
    right.scatter(
        X_train[~malignant, i],
        X_train[~malignant, j],
        s=8,
        color="lightgrey",
        label="benign",
    )
    right.quiver(*before[:, [i, j]].T, *(moved - before)[:, [i, j]].T, angles="xy", scale_units="xy", scale=1,
                 width=0.002, alpha=0.4)  # fmt: skip
    right.scatter(
        before[:, i], before[:, j], s=8, color="tab:red", label="malignant test rows"
    )
    right.scatter(
        moved[:, i], moved[:, j], s=8, color="tab:green", label="the same rows, moved"
    )
    for ax in (left, right):
        ax.set(xlabel="mean radius", ylabel="mean smoothness")
        ax.legend()
    fig.savefig(path, dpi=120)
    print(f"Picture: {path}")


def main():
    """Run the three parts."""
    # Networks this small gain nothing from a second thread, and where cores are shared the threads wait on each other.
    torch.set_num_threads(1)
    began = time.perf_counter()
    X_train, X_test, malignant_train, malignant_test = load_rows()
    sampled = compare_densities(X_train, X_test)
    moved = move_malignant(X_train, X_test, malignant_train, malignant_test)
    with tempfile.TemporaryDirectory() as folder:
        search(X_train, X_test, folder)
    save_picture(X_train, malignant_train, sampled, X_test, malignant_test, moved)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
