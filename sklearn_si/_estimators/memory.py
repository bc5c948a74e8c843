"""Fits that were done before: a folder of files of `save`, each named by its data and its parameters."""

import hashlib
import numbers
import os
import warnings

import joblib

from .._utils.after_fit import AFTER_FIT
from .._utils.callers import users_level
from .._version import __version__
from ..exceptions import LoadError
from ..persistence._archive import FORMAT, read, write
from .resume import fit_facts

# The folder within that of a joblib.Memory, which keeps results of other functions beside.
_FOLDER = "sklearn_si"  # `persistence.prune` knows it too


class FitMemory:
    """The place of one fit in a folder of fits.

    Parameters
    ----------
    path : str or None
        The file; None where the fit is not kept.
    """

    def __init__(self, path=None):
        self.path = path

    @property
    def is_kept(self):
        """Whether the fit has a place."""
        return self.path is not None

    def recall(self, estimator):
        """Give an estimator what an equal fit has left, and say whether there was one.

        Parameters that may be changed after fit are the estimator's own, also those of the density of its base.
        """
        if self.path is None:
            return False
        try:
            found = read(self.path)
        except FileNotFoundError:
            return False
        except (LoadError, OSError) as error:
            warnings.warn(
                f"The stored fit {self.path!r} cannot be read, so it is fitted anew: {error}", stacklevel=users_level()
            )
            return False
        if type(found) is not type(estimator):
            warnings.warn(
                f"The stored fit {self.path!r} is of another class, so it is fitted anew.", stacklevel=users_level()
            )
            return False
        params = estimator.get_params(deep=False)
        left = {name: value for name, value in vars(found).items() if name not in params}
        for name in [name for name in vars(estimator) if name.endswith("_") and name not in left]:
            delattr(estimator, name)  # of a fit before this one
        vars(estimator).update(left)
        os.utime(self.path)  # `prune` removes what was not asked for the longest
        return True

    def keep(self, estimator):
        """Store a fit; what `save` refuses is not stored, with a warning."""
        if self.path is None:
            return
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            write(estimator, self.path, type(estimator).__name__)
        except ValueError as error:
            warnings.warn(
                f"The fit is not kept in memory={os.path.dirname(self.path)!r}: {error}", stacklevel=users_level()
            )


def open_memory(estimator, samples, fitted_before=None):
    """The place of a fit in the folder that the parameter `memory` names.

    Two fits are the same if their class, data, training parameters and seed are; parameters that may be changed after
    fit do not count. A fit whose seed is not a number is not kept.

    Parameters
    ----------
    estimator : estimator
        One with the parameters `memory` and `random_state`.
    samples : dict
        What it is fitted to, by name.
    fitted_before : object, default=None
        What a warm start continues from.
    """
    folder = estimator.memory
    folder = folder.location if isinstance(folder, joblib.Memory) else folder
    if folder is None or not isinstance(estimator.random_state, numbers.Integral):
        return FitMemory()
    changeable = set(AFTER_FIT.get(type(estimator).__name__, ())) | {"memory"}
    facts = fit_facts(estimator, samples, fitted_before, without=changeable)
    facts |= {"format": FORMAT, "library": __version__}
    name = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=16).hexdigest()
    return FitMemory(os.path.join(os.path.abspath(os.fsdecode(folder)), _FOLDER, f"{name}.si"))
