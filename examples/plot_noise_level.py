"""
A noise level chosen after training
===================================

One fit gives an ODE and a family of SDEs. With exact fields all of them end in the same law; with learned ones the
noise decides which errors remain.

The target has eight clusters, and the fit is deliberately short, so that there are errors to see. The ODE leaves rows
stranded between clusters: it cannot tear a connected law apart. Noise pushes them back to where the density is. Too
much of it asks for more steps than are taken, and the distance of the laws grows.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_si import InterpolantDiffusion
from sklearn_si.metrics import energy_distance

rng = np.random.default_rng(0)


def clusters(n):
    """Rows of eight clusters on a circle."""
    angles = rng.integers(8, size=n) * np.pi / 4
    return 4 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.3 * rng.normal(size=(n, 2))


def stranded(rows):
    """The share of rows that are more than three standard deviations from the circle."""
    return np.mean(np.abs(np.linalg.norm(rows, axis=1) - 4) > 0.9)


X, held_out = clusters(3000), clusters(3000)
model = InterpolantDiffusion(max_iter=150, preprocessing="standardize", random_state=0).fit(X)

# %%
# No refit: ``set_params`` changes the process, the networks stay. Each level draws as many rows from the same seed.

levels = [0.0, 0.3, 1.0, 3.0, 10.0]
drawn = {level: model.set_params(noise_level=level).sample(3000) for level in levels}
print(f"held-out rows          stranded {100 * stranded(held_out):4.1f} %")
for level, rows in drawn.items():
    distance = energy_distance(rows, held_out)
    print(f"noise_level={level:<4}       stranded {100 * stranded(rows):4.1f} %   energy distance {distance:.4f}")

# %%
# The same rows of the base, on their way, and where all of them end.

figure, axes = plt.subplots(2, 3, figsize=(10, 6.8), sharex=True, sharey=True, layout="constrained")
for (above, below), level in zip(axes.T, [0.0, 1.0, 10.0], strict=True):
    start = 0.75 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], 1)
    paths = model.trajectory(start, 101, noise_level=level, random_state=0)
    above.plot(*paths.transpose(2, 0, 1), lw=0.8)
    above.set(title=f"noise_level={level:g}")
    below.scatter(*drawn[level].T, s=2)
axes[0, 0].set(ylabel="six paths")
axes[1, 0].set(ylabel="3,000 ends")
plt.show()
