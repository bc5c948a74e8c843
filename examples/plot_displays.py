"""
Looking at a fitted model
=========================

Five pictures: the training, the calibration of the fields, the density, drawn rows beside real ones, and paths.

The columns are five of scikit-learn's breast cancer table.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from sklearn_si import InterpolantFlow
from sklearn_si.displays import (
    CalibrationDisplay,
    DensityDisplay,
    LossCurveDisplay,
    SampleComparisonDisplay,
    TrajectoryDisplay,
)

names = ["radius", "texture", "area", "smoothness", "symmetry"]
X = load_breast_cancer(as_frame=True).data[[f"mean {name}" for name in names]]
train, test = train_test_split(X, random_state=0)
flow = InterpolantFlow(preprocessing="whiten", random_state=0).fit(train)

# %%
# Was the training long enough? The best round is kept, so that it may end after the
# held-out log-likelihood has started to fall.

LossCurveDisplay.from_estimator(flow)
plt.show()

# %%
# Are the fields calibrated, on rows that the fit has not seen? Bars are two standard
# errors; a calibrated field is at zero within them.

CalibrationDisplay.from_estimator(flow, test)
plt.show()

# %%
# The log-density of each pair of columns, with the others at their medians.

DensityDisplay.from_estimator(flow, test.to_numpy())
plt.show()

# %%
# Do drawn rows look like real ones? Each panel above the diagonal shows real rows, and
# its mirror image below it drawn rows, with the same ranges. The title names columns
# for which there is no space.

SampleComparisonDisplay.from_estimator(flow, test)
plt.show()

# %%
# The way of some rows from the base to the data, in two of the columns.

rows = flow.trajectory(test[:100], 2, start=1.0, stop=0.0)[-1]
TrajectoryDisplay.from_estimator(flow, np.asarray(rows), columns=(0, 3))
plt.show()
