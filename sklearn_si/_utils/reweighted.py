"""What fitted models with other weights have in common."""

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

__all__ = ["Reweighted"]


class Reweighted(BaseEstimator):
    """A model that is made of a fitted one: it is fitted already, and its clone is itself."""

    report: Bunch

    @property
    def report_(self) -> Bunch:
        """What the weights are worth."""
        return self.report

    def __sklearn_clone__(self) -> Any:
        """Itself: there is nothing to fit."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Always: it is made of a fitted model."""
        return True
