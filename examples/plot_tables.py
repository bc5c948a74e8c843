"""
One model of a mixed table
==========================

Synthesise it, report on it, fill its gaps, balance a rare class, and ask what if.

Customers of a shop: a plan, an age, a region, spending that is often nil, a date, and whether they left (one in
twelve). Ages have gaps. One model of whole rows does all that is asked here.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OrdinalEncoder

from sklearn_si.tables import TableReport, TableSynthesizer

n, rng = 6000, np.random.default_rng(0)
plan = rng.choice(["free", "basic", "pro"], p=[0.5, 0.35, 0.15], size=n)
age = np.clip(rng.normal(np.select([plan == "free", plan == "basic"], [29, 41], 50), 9), 18, 70).round()
region = rng.choice(["north", "south", "east"], size=n)
spent = np.where(plan == "free", 0.0, np.round(rng.lognormal(3 + 0.02 * (age - 40), 0.4), 2))
since = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1800, size=n), unit="D")
odds = -4.2 + 1.6 * (plan == "basic") + 0.05 * (40 - age) + 1.2 * (region == "south")
left = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-odds)), "yes", "no")
frame = pd.DataFrame({"plan": plan, "age": age, "region": region, "spent": spent, "since": since, "left": left})
frame.loc[rng.uniform(size=n) < 0.1, "age"] = np.nan
train, test = (part.reset_index(drop=True) for part in train_test_split(frame, test_size=0.3, random_state=0))

# %%
# A model of whole rows, and fresh rows of the same dtypes, levels and gaps.

table = TableSynthesizer(random_state=0).fit(train)
fresh = table.sample(len(train))
report = TableReport(train, fresh, test, target="left", model=table)
print(report)
report.plot()
plt.show()

# %%
# Gaps: five completed tables tell how uncertain the mean age of the "pro" plan is.

completed = table.impute(train, n_draws=5)
means = [c.loc[c["plan"] == "pro", "age"].mean() for c in completed]
print(f"mean age of the pro plan: {np.mean(means):.2f}, between completed tables {np.std(means, ddof=1):.2f}")

# %%
# Average precision of a classifier that was trained on some rows.


def precision(rows):
    """Average precision of boosting trained on these rows."""
    texts = ["plan", "region"]
    encoder = OrdinalEncoder().fit(train[texts])

    def numbers(part):
        days = (part["since"] - pd.Timestamp("2020-01-01")).dt.days
        return np.column_stack([encoder.transform(part[texts]), part["age"], part["spent"], days])

    model = HistGradientBoostingClassifier(random_state=0).fit(numbers(rows), rows["left"] == "yes")
    return average_precision_score(test["left"] == "yes", model.predict_proba(numbers(test))[:, 1])


# %%
# A rare class: rows of those who left, drawn until both are as many.

missing = (train["left"] == "no").sum() - (train["left"] == "yes").sum()
extra = table.sample(missing, given=pd.DataFrame({"left": ["yes"]}))
balanced = pd.concat([train, extra], ignore_index=True)
print(f"average precision: {precision(train):.3f}, with a balanced table {precision(balanced):.3f}")

# %%
# What if: customers who are like these, but on another plan. This is what the table associates with the plan, which is
# its effect only where nothing else decides on both.

some = test.loc[test["plan"] == "free"].head(500).drop(columns=["spent", "left"]).reset_index(drop=True)
for plan_name in ("free", "basic"):
    p = table.predict_proba(some.assign(plan=plan_name), target="left")[:, 1].mean()
    drawn = table.sample(given=some.assign(plan=plan_name))
    print(f"on plan {plan_name}: {100 * p:.1f} % would leave, spending {drawn['spent'].mean():.1f} in the mean")
