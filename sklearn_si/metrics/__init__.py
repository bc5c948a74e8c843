"""Distances between samples and between tables, and scorers."""

from ._kernels import maximum_mean_discrepancy
from ._predictions import crps_scorer, log_density_scorer, pinball_scorer
from ._samples import energy_distance, sample_scorer, sliced_wasserstein
from ._tables import (
    c2st,
    closest_record,
    coverage,
    marginal_distances,
    membership_auc,
    pair_trends,
    train_on_synthetic,
)
from ._transport import path_energy, plan_moments, transport_report, wasserstein_distance
from ._two_samples import two_sample_test

__all__ = [
    "c2st",
    "closest_record",
    "coverage",
    "crps_scorer",
    "energy_distance",
    "log_density_scorer",
    "marginal_distances",
    "maximum_mean_discrepancy",
    "membership_auc",
    "pair_trends",
    "path_energy",
    "pinball_scorer",
    "plan_moments",
    "sample_scorer",
    "sliced_wasserstein",
    "train_on_synthetic",
    "transport_report",
    "two_sample_test",
    "wasserstein_distance",
]
