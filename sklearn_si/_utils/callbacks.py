"""The tasks of a fit for scikit-learn's callbacks; they do nothing before scikit-learn 1.9, which has no callbacks."""

import contextlib

from sklearn.base import BaseEstimator

from ..exceptions import FitDivergedError

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]  # in place of the import
        """An empty base class for releases of scikit-learn without callbacks."""


# The attributes that scikit-learn sets on an estimator while it is fitted.
_OF_A_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown", "_parent_callback_ctx")


class FollowedEstimator(CallbackSupportMixin, BaseEstimator):
    """An estimator whose fit supports callbacks; its pickles do not contain them after the fit."""

    def __getstate__(self):
        """The state without the tasks of a fit, and without callbacks if the fit has ended."""
        # Where the model is loaded, the classes of its callbacks may be missing.
        fitted = any(name.endswith("_") and not name.startswith("_") for name in vars(self))
        return {
            name: value for name, value in super().__getstate__().items()
            if name not in _OF_A_FIT and not (fitted and name == "_skl_callbacks")
        }  # fmt: skip


class Tasks:
    """The tasks of one fit: fit -> runs ("compare", "train", ...) -> rounds of gradient steps, each with a validation.

    The context of a round has the attributes `n_iter`, `loss` and `validation_score` (None without held-out rows). A
    callback that returns True at the end of a round ends the training, which keeps the best model so far.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted.
    X, y : array-like
        The samples that callbacks are passed.
    metadata : dict, default=None
        The other arguments of fit.
    """

    def __init__(self, estimator, X=None, y=None, metadata=None):
        self.estimator, self.data, self.stopped = estimator, {"X": X, "y": y, "metadata": metadata}, False
        self.context = None
        if hasattr(estimator, "_init_callback_context"):
            # The number of runs is not known in advance.
            self.context = estimator._init_callback_context(max_subtasks=None)
            self._begin(self.context)

    def _begin(self, context):
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def _end(self, context, attributes=None):
        return context.call_on_fit_task_end(estimator=self.estimator, reconstruction_attributes=attributes, **self.data)

    @contextlib.contextmanager
    def run(self, name, n_rounds):
        """One training run of `n_rounds` rounds (None if unknown); yields a function to call after each, or None."""
        if self.context is None:
            yield None
            return
        run = self.context.subcontext(task_name=name, max_subtasks=n_rounds)
        self._begin(run)

        def after_round(history, attributes):
            context = run.subcontext(task_name="round")
            context.n_iter, context.loss = history.n_iter, history.loss_curve[-1]
            context.validation_score = history.validation_scores[-1] if history.validation_scores else None
            self._begin(context)
            self.stopped |= self._end(context, attributes)
            return self.stopped

        try:
            yield after_round
        except FitDivergedError:  # other runs may follow
            self._end(run)
            raise
        self.stopped |= self._end(run)

    @contextlib.contextmanager
    def part(self, name, estimator):
        """The fit of another estimator as a part of this one, to which callbacks may propagate."""
        if self.context is None or not hasattr(estimator, "set_callbacks"):
            yield
            return
        context = self.context.subcontext(task_name=name)
        with context.propagate_callback_context(estimator):
            self._begin(context)
            yield
            self._end(context)

    def end(self, attributes=None):
        """End the fit, with the fitted attributes."""
        if self.context is not None:
            self._end(self.context, attributes)


class _NoTasks:
    """The tasks of a fit without callbacks."""

    @contextlib.contextmanager
    def run(self, name, n_rounds):
        """Yield no function to call after a round."""
        yield None

    @contextlib.contextmanager
    def part(self, name, estimator):
        """Call nothing."""
        yield


NO_TASKS = _NoTasks()
