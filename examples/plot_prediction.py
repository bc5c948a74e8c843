"""
Intervals that hold
===================

A regressor that predicts a distribution, checked on new rows: coverage, PIT values, and a
fan of quantiles, without and with calibration.

The data are simulated: the target is lognormal around a curve, and two shops differ.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_si import InterpolantRegressor
from sklearn_si.displays import CalibrationDisplay, PredictiveDisplay

rng = np.random.default_rng(0)


def observe(n):
    """Sizes with missing values, shops, and a skewed price."""
    frame = pd.DataFrame(
        {"size": rng.uniform(0, 10, n), "shop": rng.choice(["north", "south"], n)}
    )
    noise = rng.normal(size=n) * np.where(frame["shop"] == "north", 0.3, 0.7)
    price = (2 + np.sin(frame["size"])) * np.exp(noise)
    frame.loc[rng.random(n) < 0.05, "size"] = np.nan
    return frame, price.to_numpy()


X, y = observe(1000)
X_new, y_new = observe(600)
plain = InterpolantRegressor(random_state=0).fit(X, y)
safe = InterpolantRegressor(calibrate=True, random_state=0).fit(X, y)

# %%
# ``diagnose`` compares the predicted distributions with new rows. With ``calibrate=True``
# a fifth of the rows is kept aside in fit, and corrects them.

print(plain.diagnose(X_new, y_new))
print(safe.diagnose(X_new, y_new))

# %%
# The same as a picture: the share of rows in each interval against the coverage that was
# asked for, and the histogram of P(Y <= y | x), which is flat if the model is right.

CalibrationDisplay.from_estimator(safe, X_new, y_new)
plt.show()

# %%
# The fan of quantiles along the size, and the bands of the two shops.

PredictiveDisplay.from_estimator(safe, X_new, y_new, column="size")
plt.show()
PredictiveDisplay.from_estimator(safe, X_new, y_new, column="shop")
plt.show()
