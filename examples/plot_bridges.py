"""
Three bridges between two samples
=================================

The same rows are carried from eight clusters to two moons by independent pairs, optimal pairs, and the Schroedinger
bridge.

With independent pairs paths cross over and rows end far away; with optimal pairs they go to the nearest part of the
moons; the Schroedinger bridge gives each a law of partners.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from sklearn_si import InterpolantFlow, SchroedingerBridge
from sklearn_si.metrics import transport_report

rng = np.random.default_rng(0)
angles = rng.integers(8, size=2000) * np.pi / 4
X0 = 5 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.5 * rng.normal(size=(2000, 2))
X1 = 3 * make_moons(2000, noise=0.1, random_state=0)[0] - [1.5, 0.75]

shared = {"base_density": None, "random_state": 0}
models = {
    "independent pairs": InterpolantFlow(**shared),
    "optimal pairs": InterpolantFlow(coupling="optimal", **shared),
    "Schroedinger bridge": SchroedingerBridge(epsilon=0.02, n_rounds=0, **shared),
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X0, X1)
    noise = model.noise_level
    paths = model.trajectory(X0[:150], 51, noise_level=noise, random_state=0)
    ax.plot(*paths.transpose(2, 0, 1), color="0.7", lw=0.5)
    ax.scatter(*X0[:150].T, s=4, label="X0")
    ax.scatter(*paths[-1].T, s=4, label="carried")
    ax.set(title=name, xlabel="first column", ylabel="second column")
    if noise == 0:
        report = transport_report(model, X0[:1000], X1[:1000])
        moved = f"rows moved by {report.displacement:.1f} (at the least by {report.shortest:.1f})"
        print(f"{name}: {moved}, W2 to the moons {report.distance:.2f}")
axes[0].legend()
figure.tight_layout()
plt.show()
