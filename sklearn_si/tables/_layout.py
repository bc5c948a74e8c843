"""Which columns of a table have codes, which have values, and what the two models are told of them."""

import dataclasses

import numpy as np
import torch

from .._utils.names import registered
from ._code_features import code_features

__all__ = ["Layout", "layout_of"]


@registered("tables.Layout")
@dataclasses.dataclass
class Layout:
    """The columns with several codes and those with values.

    Parameters
    ----------
    columns : list of Column
    coded, valued : list of int
        Their places; codes are drawn in the order of `coded`.
    """

    columns: list
    coded: list
    valued: list

    @property
    def owners(self):
        """For each column with values, where its codes stand in `coded`; -1 where it has one code."""
        return [self.coded.index(j) if j in self.coded else -1 for j in self.valued]

    def tensors(self, codes, values, device):
        """Codes of the columns that have several, and values (NaN is not known, inf absent), for the network."""
        says_all = (codes[:, self.valued] >= 0) & ~self.have_values(codes)
        shown = np.where(says_all, np.inf, values[:, self.valued])
        known = torch.as_tensor(codes[:, self.coded], device=device)
        return known, torch.as_tensor(shown, dtype=torch.float32, device=device)

    def have_values(self, codes):
        """Whether the cells of the columns with values have one, of shape (n_rows, n_valued)."""
        have = np.empty((len(codes), len(self.valued)), dtype=bool)
        for k, j in enumerate(self.valued):
            have[:, k] = self.columns[j].is_value(codes[:, j])
        return have

    def features(self, codes):
        """Codes as numbers for the flow: those of few levels one by one, of ordered ones waves of their ranks."""
        parts = [np.empty((len(codes), 0)), *(code_features(self.columns[j], codes[:, j]) for j in self.coded)]
        return np.concatenate(parts, axis=1).astype(np.float64)


def layout_of(columns):
    """The layout of some columns: numbers in intervals, spikes and missing values follow the levels of the others."""
    coded = sorted((j for j, c in enumerate(columns) if c.n_codes > 1), key=lambda j: columns[j].is_continuous)
    return Layout(columns, coded, [j for j, column in enumerate(columns) if column.is_continuous])
