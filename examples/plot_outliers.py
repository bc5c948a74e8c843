"""
Outliers by their density
=========================

Rows whose cells are all usual, but not together, have a low density. Rows kept aside turn it into p-values.

A pump reports its speed, flow, pressure and temperature. The outliers below are made by shuffling each column by itself:
every number has been seen before, and no limit on a single column can find them. The data are simulated.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from sklearn_si import InterpolantFlow

rng = np.random.default_rng(0)


def pump(n):
    """Rows of a pump that works: flow follows its speed, pressure the square of it."""
    speed = rng.uniform(0.6, 3.0, size=n)
    flow = 40 * speed + 3 * rng.normal(size=n)
    pressure = 0.5 + 0.9 * speed**2 * np.exp(0.1 * rng.normal(size=n))
    temperature = 35 + 0.25 * pressure * flow / speed + 2 * rng.normal(size=n)
    return np.column_stack([speed, flow, pressure, temperature])


train, calibration, usual = pump(2000), pump(1000), pump(1000)
outliers = rng.permuted(pump(200), axis=0)
test = np.concatenate([usual, outliers])
is_outlier = np.repeat([False, True], [len(usual), len(outliers)])

# %%
# One fit, without tuning. The log-density is high for usual rows, so that its negative ranks the outliers.

flow = InterpolantFlow(random_state=0).fit(train)
forest = IsolationForest(random_state=0).fit(train)
for name, model in {"InterpolantFlow": flow, "IsolationForest": forest}.items():
    area = roc_auc_score(is_outlier, -model.score_samples(test))
    print(f"{name:<16} area under the ROC curve: {area:.3f}")

# %%
# A threshold needs rows that the fit has not seen. The p-value of a row is the share of such rows that are as
# unlikely as it is. Flagging p-values up to 0.01 raises a false alarm for about one usual row in a hundred, whatever
# the quality of the model. Its quality decides how many outliers are found.

reference = np.sort(flow.score_samples(calibration))
p_values = (1 + np.searchsorted(reference, flow.score_samples(test), side="right")) / (
    1 + len(reference)
)
flagged = p_values <= 0.01
print(f"false alarms: {100 * flagged[~is_outlier].mean():.1f} % of usual rows")
print(f"found: {100 * flagged[is_outlier].mean():.0f} % of outliers")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
bins = np.linspace(-40, reference[-1], 60)
for rows, label in ((usual, "usual rows"), (outliers, "outliers")):
    left.hist(
        np.clip(flow.score_samples(rows), bins[0], None),
        bins,
        density=True,
        alpha=0.6,
        label=label,
    )
left.axvline(
    np.quantile(reference, 0.01),
    color="black",
    lw=1,
    label="1 % of the calibration rows are below",
)
left.set(
    xlabel="log-density (nats; below -40 drawn at -40)", ylabel="share of rows per nat"
)
left.legend()
right.scatter(usual[:, 0], usual[:, 2], s=6, color="0.7", label="usual rows")
found = flagged[is_outlier]
right.scatter(*outliers[found][:, [0, 2]].T, s=10, color="C1", label="outliers, found")
right.scatter(
    *outliers[~found][:, [0, 2]].T,
    s=14,
    color="C3",
    marker="x",
    label="outliers, missed",
)
right.set(xlabel="speed (1000 rpm)", ylabel="pressure (bar)")
right.legend()
plt.show()
