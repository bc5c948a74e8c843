"""What is asked of the models in files that later versions have to load: questions whose answers draw nothing."""

import numpy as np
import pandas as pd

# Rows that no generator has drawn, so that they are the same under every version of numpy.
ROWS = np.array([[-1.2, 0.4], [0.0, 0.0], [0.7, -0.3], [1.5, 1.1]])
FAR = ROWS + 1.0
LABELS = np.array(["a", "b", "a", "b"])
NUMBERS = np.array([0.2, -0.4, 0.9, 1.3])
TABLE = pd.DataFrame({
    "size": [0.3, -0.8, 1.1, 0.0],
    "kind": ["u", "v", "u", "v"],
    "count": pd.array([1, 3, None, 2], dtype="Int64"),
})  # fmt: skip
ANGLES = np.array([[10.0, 0.4], [350.0, 0.0], [180.0, -0.3], [90.0, 1.1]])

# The question whose answer is drawn, and within what it is compared: four standard errors of the mean.
DRAWS, DRAWN_WITHIN = "mean of 4000 draws", 0.1


def scores(rows, **given):
    """A question for log-densities."""
    return lambda model: model.score_samples(rows, **given)


# For each file, questions by name. A model answers with an array of numbers, or of texts.
QUESTIONS = {
    "flow": {"scores": scores(ROWS), "to normal": lambda m: m.transform(ROWS)},
    "flow_with_condition": {"scores": scores(ROWS, condition=LABELS)},
    "flow_with_support": {"scores": scores(np.exp(ROWS))},
    "flow_on_circles": {"scores": scores(ANGLES)},
    "flow_of_any_columns": {"scores": scores(ROWS, columns=[0])},
    "flow_of_ensemble": {"scores": scores(ROWS)},
    "flow_of_two_samples": {"scores": scores(FAR), "moved": lambda m: m.transform(ROWS)},
    "flow_of_learned_path": {"moved": lambda m: m.transform(ROWS)},
    "flow_distilled": {"scores": scores(ROWS), "to normal": lambda m: m.transform(ROWS)},
    "diffusion": {"scores": scores(FAR), "moved": lambda m: m.transform(ROWS)},
    "diffusion_of_one_sample": {"scores": scores(ROWS), "field": lambda m: m.score_function(ROWS, 0.5)},
    "forecast": {DRAWS: lambda m: m.sample(4000, condition=ROWS[0], random_state=0).mean(0)},
    "bridge": {"scores": scores(FAR), "moved": lambda m: m.transform(ROWS)},
    "bridge_of_mixtures": {"scores": scores(FAR), "moved": lambda m: m.transform(ROWS)},
    "multimarginal": {"scores": scores(ROWS, time=0.5), "moved": lambda m: m.transform(ROWS, 0.0, 3.0)},
    "table": {"scores": scores(TABLE), "classes": lambda m: m.predict_proba(TABLE, target="kind")},
    "table_raked": {"scores": scores(TABLE), "weights": lambda m: m.weights(TABLE)},
    "imputer": {"scores": lambda m: m.synthesizer_.score_samples(TABLE)},
    "resampler": {"scores": lambda m: m.estimator_.score_samples(TABLE.assign(**{"class": ["class 0"] * 4}))},
    "codec": {"codes": lambda m: m.transform(TABLE[:2])},
    "transformed_density": {"scores": scores(ROWS), "to normal": lambda m: m.transform(ROWS)},
    "pipeline": {"scores": scores(ROWS)},
    "regressor": {
        "means": lambda m: m.predict(ROWS),
        "quantiles": lambda m: m.predict_quantiles(ROWS, [0.1, 0.9]),
        "log-densities": lambda m: m.predict_log_density(ROWS, NUMBERS),
    },
    "regressor_calibrated": {"intervals": lambda m: m.predict_interval(ROWS, 0.8)},
    "classifier": {"classes": lambda m: m.predict(ROWS), "probabilities": lambda m: m.predict_proba(ROWS)},
    "detector": {"scores": scores(ROWS), "p-values": lambda m: m.p_values(ROWS)},
    "ratio_weights": {"weights": lambda m: m.weights(ROWS)},
}  # fmt: skip


def answers(name, model):
    """The answers of a model, as lists that JSON can hold, by the question."""
    return {question: np.asarray(ask(model)).tolist() for question, ask in QUESTIONS[name].items()}
