"""What the regressor and the classifier share: parameters, the frame of a fit, the columns that a flow learns."""

import numbers
import os

import joblib
import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length

from ..._utils.kinds import refuse_dict
from ..._utils.links import LinkedEstimator
from ..._utils.row_numbers import numbered, rows_of_weights
from ...preprocessing._grids import ColumnGrid, Grid, chosen_columns
from ...preprocessing._support import bounds_of, possible_rows, read_support, refuse_circles
from ..flow import InterpolantFlow
from ..in_group import fit_by_first
from ..memory import open_memory

# What the shared parameters may be.
CONSTRAINTS: dict = {
    "flow": [InterpolantFlow, None],
    "dequantize": [StrOptions({"auto"}), "array-like", None],
    "support": [StrOptions({"real", "positive"}), tuple, list, dict],
    "calibrate": ["boolean"],
    "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
    "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
    "device": [str, torch.device],
    "memory": [str, os.PathLike, joblib.Memory, None],
    "random_state": ["random_state"],
}


class FlowInside(LinkedEstimator):
    """An estimator of p(y | X) around a flow, with the columns that the flow learns on a line."""

    def _fit_or_recall(self, X, y, sample_weight):
        """Fit, or take the equal fit that the folder `memory` keeps; an error leaves the estimator as it was."""
        return fit_by_first(self, self._fit_to_all, X=X, y=y, sample_weight=sample_weight)

    def _fit_to_all(self, X, y, sample_weight):
        refuse_dict(X, "X")
        check_consistent_length(X, y, sample_weight)
        memory = open_memory(self, {"X": X, "y": y, "sample_weight": sample_weight})
        if memory.recall(self):
            self._check_recalled()
            return
        self._fit(X, y, sample_weight)
        memory.keep(self)

    def _fit(self, X, y, sample_weight):
        raise NotImplementedError

    def _check_recalled(self):
        """Check the parameters that may have changed since an equal fit."""

    def _read_columns(self, rows, names, reason):
        """Learn where the columns of what the flow learns live, and the cells of those that repeat values.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_columns)
        names : list
        reason : str
            Why columns cannot be circular, for the error.
        """
        _refuse_support_of_flow(self.flow)
        self._names, self.support_ = names, read_support(self.support, names)
        refuse_circles(self.support_, f"{type(self).__name__}, {reason}")
        repeated = chosen_columns(self.dequantize, rows, names)
        self.grid_ = Grid({j: ColumnGrid.of(rows[:, j], *bounds_of(self.support_, j)) for j in repeated})

    def _check_support(self, rows, name, sample_weight):
        """Raise where a row of fit lies outside, or on a bound if its column has no cells."""
        if self.support_ is not None:
            with numbered(rows_of_weights(sample_weight, name)):
                self.support_.check(rows, name, self._names, self.grid_.columns)

    def _possible_rows(self, rows, name, consequence):
        """Which rows of a question can be: a warning tells of those on a bound of the support or outside.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_columns)
        name : str
            Of the rows, for the warning.
        consequence : str
            What follows for the others.
        """
        if self.support_ is None:
            return np.ones(len(rows), dtype=bool)
        return possible_rows(self.support_, rows, name, self._names, self.grid_.columns, consequence)


def _refuse_support_of_flow(flow):
    """Raise where the flow inside has a support, which would be that of standardised columns."""
    if flow is not None and flow.support != "real":
        raise ValueError(
            f"Got flow with support={flow.support!r}, but the flow learns standardised columns: set support= of "
            "the estimator around it."
        )
