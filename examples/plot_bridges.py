"""
Three bridges between two samples
=================================

The same rows move from eight clusters to two moons, by a flow trained on independent pairs, by one trained on optimal
pairs, and by a Schroedinger bridge.

With independent pairs many rows end far from where they started. With optimal pairs they go to the nearest part of the
moons. The Schroedinger bridge is random: it gives each row a distribution of partners.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from sklearn_si import InterpolantFlow, SchroedingerBridge
from sklearn_si.metrics import wasserstein_distance

rng = np.random.default_rng(0)
angles = rng.integers(8, size=2000) * np.pi / 4
X0 = 5 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.5 * rng.normal(
    size=(2000, 2)
)
X1 = 3 * make_moons(2000, noise=0.1, random_state=0)[0] - [1.5, 0.75]

epsilon = 0.02
shared = {"base_density": None, "random_state": 0}
models = {
    "independent pairs": InterpolantFlow(**shared),
    "optimal pairs": InterpolantFlow(coupling="optimal", **shared),
    "Schroedinger bridge": SchroedingerBridge(epsilon, n_rounds=0, **shared),
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X0, X1)
    noise = epsilon if name == "Schroedinger bridge" else 0.0
    paths = model.trajectory(X0[:150], 51, noise_level=noise, random_state=0)
    ax.plot(*paths.transpose(2, 0, 1), color="0.7", lw=0.5)
    ax.scatter(*X0[:150].T, s=4, label="X0")
    ax.scatter(*paths[-1].T, s=4, label="the same rows, moved")
    ax.set(title=name, xlabel="first column", ylabel="second column")
axes[0].legend()
figure.tight_layout()
plt.show()

# %%
# How far are rows moved, and could they be moved less? The rows that a flow makes of X0 can be paired with X0 in many
# ways. ``wasserstein_distance`` finds the pairing of least mean squared distance among these very rows, so that no flow
# can be below it. A comparison with rows of X1 would not say this: two finite samples of one distribution differ, and
# reaching the rows of one of them may cost more than reaching the distribution. All distances are in the units of
# the data.

for name in ("independent pairs", "optimal pairs"):
    moved = models[name].transform(X0[:1000])
    squared = ((moved - X0[:1000]) ** 2).sum(axis=1).mean()
    least = wasserstein_distance(X0[:1000], moved) ** 2
    to_moons = wasserstein_distance(moved, X1[:1000])
    print(f"{name}: W2 distance to 1,000 rows of the moons {to_moons:.2f}")
    print(f"    mean squared distance moved {squared:.1f}, least possible {least:.1f}")
between = wasserstein_distance(X1[1000:], X1[:1000])
print(f"W2 distance between two samples of 1,000 rows of the moons: {between:.2f}")
