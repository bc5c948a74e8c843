"""What fitted models with other weights have in common."""

from typing import Any

from sklearn.base import BaseEstimator

from .figures import Figures

__all__ = ["Reweighted"]

# Characters of the representation of the model inside, above which its class has to do.
_LONGEST = 80


class Reweighted(BaseEstimator):
    """A model that is made of a fitted one: it is fitted already, and its clone is itself."""

    report: Figures

    @property
    def report_(self) -> Figures:
        """What the weights are worth."""
        return self.report

    @staticmethod
    def _of(model: Any) -> str:
        """The model in one line, for `__repr__`."""
        told = " ".join(repr(model).split())
        return told if len(told) <= _LONGEST else f"{type(model).__name__}(...)"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """What notebooks show: the same line, because there are no parameters to choose."""
        return {"text/plain": repr(self)}

    def __sklearn_clone__(self) -> Any:
        """Itself: there is nothing to fit."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Always: it is made of a fitted model."""
        return True
