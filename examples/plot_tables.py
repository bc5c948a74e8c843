"""
One model of a mixed table
==========================

Draw synthetic rows, report on them, impute missing values, balance a rare class, and predict under other conditions.

Customers of a shop: a plan, an age, a region, spending that is often zero, a date, and whether they left (one in
twelve). Some ages are missing. The data are simulated. One model of whole rows does everything below.
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
age = np.clip(
    rng.normal(np.select([plan == "free", plan == "basic"], [29, 41], 50), 9), 18, 70
).round()
region = rng.choice(["north", "south", "east"], size=n)
spent = np.where(
    plan == "free", 0.0, np.round(rng.lognormal(3 + 0.02 * (age - 40), 0.4), 2)
)
since = pd.Timestamp("2020-01-01") + pd.to_timedelta(
    rng.integers(0, 1800, size=n), unit="D"
)
odds = -4.2 + 1.6 * (plan == "basic") + 0.05 * (40 - age) + 1.2 * (region == "south")
left = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-odds)), "yes", "no")
frame = pd.DataFrame(
    {
        "plan": plan,
        "age": age,
        "region": region,
        "spent": spent,
        "since": since,
        "left": left,
    }
)
frame.loc[rng.uniform(size=n) < 0.1, "age"] = np.nan
train, test = (
    part.reset_index(drop=True)
    for part in train_test_split(frame, test_size=0.3, random_state=0)
)

# %%
# A model of whole rows, and new rows with the same dtypes, categories and shares of missing values.

table = TableSynthesizer(random_state=0).fit(train)
fresh = table.sample(len(train))
report = TableReport(train, fresh, test, target="left", model=table)
print(report)
report.plot()
plt.show()

# %%
# Imputation: five completed tables show how much the missing ages add to the uncertainty of a mean.

completed = table.impute(train, n_draws=5)
means = [c.loc[c["plan"] == "pro", "age"].mean() for c in completed]
print(f"mean age on the pro plan: {np.mean(means):.2f}")
print(f"    standard deviation between completed tables: {np.std(means, ddof=1):.2f}")

# %%
# How good is a classifier trained on given rows? Its average precision on test rows says it.


def precision(rows):
    """Average precision of boosting trained on these rows."""
    texts = ["plan", "region"]
    encoder = OrdinalEncoder().fit(train[texts])

    def numbers(part):
        days = (part["since"] - pd.Timestamp("2020-01-01")).dt.days
        return np.column_stack(
            [encoder.transform(part[texts]), part["age"], part["spent"], days]
        )

    model = HistGradientBoostingClassifier(random_state=0).fit(
        numbers(rows), rows["left"] == "yes"
    )
    return average_precision_score(
        test["left"] == "yes", model.predict_proba(numbers(test))[:, 1]
    )


# %%
# A rare class: rows of customers who left are drawn until both classes have as many rows.

missing = (train["left"] == "no").sum() - (train["left"] == "yes").sum()
extra = table.sample(missing, given=pd.DataFrame({"left": ["yes"]}))
balanced = pd.concat([train, extra], ignore_index=True)
print(f"average precision: {precision(train):.3f}")
print(f"    with a balanced table: {precision(balanced):.3f}")

# %%
# Other conditions: customers like these, but on another plan. The answer is what the table associates with the plan. It is
# the effect of the plan only if nothing else influences both.

some = (
    test.loc[test["plan"] == "free"]
    .head(500)
    .drop(columns=["spent", "left"])
    .reset_index(drop=True)
)
for plan_name in ("free", "basic"):
    p = table.predict_proba(some.assign(plan=plan_name), target="left")[:, 1].mean()
    drawn = table.sample(given=some.assign(plan=plan_name))
    spending = drawn["spent"].mean()
    print(f"on plan {plan_name}: {100 * p:.1f} % leave, mean spending {spending:.1f}")
