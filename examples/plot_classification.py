"""
A classifier from class-conditional densities
=============================================

Bayes' rule turns log p(x given class) into class probabilities, if the shares of the classes are added.

One class has nine rows in ten. Without its share, the prior, the rare class is predicted far too often. The data are
simulated.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sklearn_si import InterpolantFlow

rng = np.random.default_rng(0)


def two_classes(n):
    """Rows of two overlapping half circles, and their classes."""
    y = rng.choice(["common", "rare"], p=[0.9, 0.1], size=n)
    angle = rng.uniform(0, np.pi, size=n)
    upper = np.column_stack([np.cos(angle), np.sin(angle)])
    centres = np.where((y == "common")[:, None], upper, [1, 0.5] - upper)
    return centres + 0.35 * rng.normal(size=(n, 2)), y


X, y = two_classes(1500)
X_test, y_test = two_classes(3000)
flow = InterpolantFlow(random_state=0).fit(X, condition=y)

# %%
# ``softmax`` over classes of log p(x given class) + log p(class) is p(class given x).

classes, counts = np.unique(y, return_counts=True)
prior = counts / counts.sum()


def predict_proba(X, prior):
    """Class probabilities, by Bayes' rule."""
    log_p = np.column_stack([flow.score_samples(X, condition=name) for name in classes])
    return softmax(log_p + np.log(prior), axis=1)


logistic = LogisticRegression().fit(X, y)
found = {
    "densities and prior": predict_proba(X_test, prior),
    "densities alone": predict_proba(X_test, np.full(2, 0.5)),
    "logistic regression": logistic.predict_proba(X_test),
}
for name, p in found.items():
    accuracy = np.mean(classes[p.argmax(axis=1)] == y_test)
    loss = log_loss(y_test, p, labels=classes)
    print(f"{name:<20} accuracy {accuracy:.3f}, log loss {loss:.3f}")

# %%

first, second = np.meshgrid(np.linspace(-2, 3, 80), np.linspace(-1.6, 2, 60))
grid = np.column_stack([first.ravel(), second.ravel()])
figure, axes = plt.subplots(
    1, 2, figsize=(10, 4), sharex=True, sharey=True, layout="constrained"
)
for ax, name, shares in (
    (axes[0], "with the prior", prior),
    (axes[1], "without it", np.full(2, 0.5)),
):
    p_rare = predict_proba(grid, shares)[:, 1].reshape(first.shape)
    filled = ax.contourf(
        first, second, p_rare, levels=np.linspace(0, 1, 11), cmap="RdBu_r"
    )
    for name_of_class, color in (("common", "C0"), ("rare", "C3")):
        rows = X[y == name_of_class][:300]
        ax.scatter(
            *rows.T,
            s=5,
            color=color,
            edgecolor="white",
            linewidth=0.2,
            label=name_of_class,
        )
    ax.set(title=name, xlabel="first column", xlim=(-2, 3), ylim=(-1.6, 2))
axes[0].set(ylabel="second column")
axes[0].legend()
figure.colorbar(filled, ax=axes, label="probability of the rare class")
plt.show()
