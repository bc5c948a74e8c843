"""
Imputation by draws
===================

A missing value is drawn from its distribution given the rest of its row. Means of that distribution predict well, but no
row looks like them.

The number of calls of a customer depends on the age along a curve and on the plan. A quarter of the calls is missing,
mostly of customers above 60. The data are simulated, so that what is missing is known.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from sklearn_si.tables import TableSynthesizer

n, rng = 2000, np.random.default_rng(0)
age = rng.uniform(18, 80, size=n)
pro = rng.uniform(size=n) < 0.5
calls = np.where(pro, 30, 12) - 0.012 * (age - 45) ** 2 + 1.5 * rng.normal(size=n)
full = pd.DataFrame({"plan": np.where(pro, "pro", "free"), "age": age, "calls": calls})
# the plan is not always known either
full.loc[rng.uniform(size=n) < 0.2, "plan"] = None
missing = rng.uniform(size=n) < 0.1 + 0.5 * (age > 60)
frame = full.assign(calls=full["calls"].mask(missing))

# %%
# One fit to the incomplete table, then as many completed tables as are asked for. IterativeImputer, which fills in
# predictions of a linear model, reads numbers alone: it is given the plan as 0 and 1.

table = TableSynthesizer(random_state=0).fit(frame)
completed = table.impute(frame, n_draws=10)
coded = frame.assign(plan=frame["plan"].map({"free": 0.0, "pro": 1.0}))
by_means = pd.DataFrame(
    IterativeImputer(max_iter=50, random_state=0).fit_transform(coded),
    columns=frame.columns,
)

# %%
# A statistic is computed from each completed table, and averaged. Its spread between tables is the part of its standard
# error that is due to missing values, which a single completed table hides (Rubin's rules).

drawn = np.array([[one["calls"].mean(), one["calls"].std()] for one in completed])
mean, deviation = drawn.mean(axis=0)
spread = drawn.std(axis=0, ddof=1)
print("calls                mean            standard deviation")
print(f"nothing missing      {calls.mean():.2f}           {calls.std():.2f}")
print(
    f"drawn, 10 tables     {mean:.2f} +- {spread[0]:.2f}   "
    f"{deviation:.2f} +- {spread[1]:.2f}"
)
others = {"IterativeImputer": by_means["calls"], "known values alone": frame["calls"]}
for name, values in others.items():
    print(f"{name:<20} {values.mean():.2f}           {values.std():.2f}")

# %%

figure, axes = plt.subplots(
    1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained"
)
shown = {
    "what is missing": calls,
    "drawn": completed[0]["calls"],
    "IterativeImputer": by_means["calls"],
}
for ax, (name, values) in zip(axes, shown.items(), strict=True):
    ax.scatter(age[~missing], calls[~missing], s=3, color="0.8", label="known")
    ax.scatter(age[missing], np.asarray(values)[missing], s=4, color="C1", label=name)
    ax.set(title=name, xlabel="age")
axes[0].set(ylabel="calls")
plt.show()
