"""
Intervals for y given x
=======================

A flow of y, conditioned on x, gives quantiles, intervals and draws of y for any x, also where y is skewed.

The data are simulated, so that the true quantiles are known: the noise is skewed, and its size grows with x. A regression
of the mean with a normal error would miss both.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import gumbel_r, norm

from sklearn_si import InterpolantFlow

rng = np.random.default_rng(0)


def observe(n):
    """A column of x and of y, with Gumbel noise around a curve."""
    x = rng.uniform(0, 10, size=(n, 1))
    return x, np.sin(x) * x / 3 + (0.2 + 0.1 * x) * rng.gumbel(size=(n, 1))


x, y = observe(3000)
x_test, y_test = observe(2000)
flow = InterpolantFlow(random_state=0).fit(y, condition=x)

# %%
# ``inverse_transform`` maps a standard normal to y. With a single column this map rises, so that it takes the quantiles
# of the normal to those of y given x.


def quantile(level, x):
    """The quantile of y at a level, for each row of x."""
    return flow.inverse_transform(np.full((len(x), 1), norm.ppf(level)), condition=x)


low, high = quantile(0.05, x_test), quantile(0.95, x_test)
inside = (low <= y_test) & (y_test <= high)
print(f"intervals of 90 % hold {100 * inside.mean():.1f} % of new rows")
for start, stop in ((0, 2.5), (2.5, 5), (5, 7.5), (7.5, 10)):
    part = (start <= x_test) & (x_test < stop)
    print(f"    x from {start:<4} to {stop:<4} {100 * inside[part].mean():.1f} %")

# %%
# The quantiles beside the true ones, and the share of new rows below each of them, which should be its level.

grid = np.linspace(0.05, 9.95, 200)[:, None]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=[2, 1]
)
left.scatter(x_test, y_test, s=3, color="0.7", label="new rows")
for k, level in enumerate((0.05, 0.5, 0.95)):
    truth = np.sin(grid) * grid / 3 + (0.2 + 0.1 * grid) * gumbel_r.ppf(level)
    left.plot(grid, quantile(level, grid), color=f"C{k}", label=f"quantile {level:g}")
    left.plot(grid, truth, color="black", lw=0.8, ls="--")
left.plot([], color="black", lw=0.8, ls="--", label="true quantiles")
left.set(xlabel="x", ylabel="y")
left.legend()
levels = np.linspace(0.05, 0.95, 19)
right.plot([0, 1], [0, 1], color="0.7")
right.plot(
    levels, [(y_test <= quantile(level, x_test)).mean() for level in levels], "o", ms=4
)
right.set(xlabel="level", ylabel="share of new rows below the quantile", aspect="equal")
plt.show()
