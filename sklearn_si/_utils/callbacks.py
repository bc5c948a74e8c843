"""The tasks of a fit, as scikit-learn's callbacks see them; inert on releases that have none (before 1.9)."""

import contextlib

from sklearn.base import BaseEstimator

from ..exceptions import FitDivergedError

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]  # in place of the import
        """What an estimator inherits where scikit-learn has no callbacks: nothing."""


# What scikit-learn keeps in an estimator while it is fitted.
_OF_A_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown", "_parent_callback_ctx")


class FollowedEstimator(CallbackSupportMixin, BaseEstimator):
    """An estimator whose fit callbacks may follow; its pickles do not hold them once it is fitted."""

    def __getstate__(self):
        """The state without the tasks of a fit, and without the callbacks of one that is over."""
        # whoever loads the model may not have their classes
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
        What is fitted.
    X, y : array-like
        The samples, as callbacks get them.
    metadata : dict, default=None
        What else fit was given.
    """

    def __init__(self, estimator, X=None, y=None, metadata=None):
        self.estimator, self.data, self.stopped = estimator, {"X": X, "y": y, "metadata": metadata}, False
        self.context = None
        if hasattr(estimator, "_init_callback_context"):
            # how many runs there will be, only the runs tell
            self.context = estimator._init_callback_context(max_subtasks=None)
            self._begin(self.context)

    def _begin(self, context):
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def _end(self, context, attributes=None):
        return context.call_on_fit_task_end(estimator=self.estimator, reconstruction_attributes=attributes, **self.data)

    @contextlib.contextmanager
    def run(self, name, n_rounds):
        """One training run of so many rounds (None: not known); what is to be called after each of them, or None."""
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
        except FitDivergedError:  # others may follow
            self._end(run)
            raise
        self.stopped |= self._end(run)

    @contextlib.contextmanager
    def part(self, name, estimator):
        """The fit of another estimator as a part of this one: callbacks that propagate follow it there."""
        if self.context is None or not hasattr(estimator, "set_callbacks"):
            yield
            return
        context = self.context.subcontext(task_name=name)
        with context.propagate_callback_context(estimator):
            self._begin(context)
            yield
            self._end(context)

    def end(self, attributes=None):
        """The end of the fit, with the fitted attributes."""
        if self.context is not None:
            self._end(self.context, attributes)


class _NoTasks:
    """The tasks of a fit that nobody follows."""

    @contextlib.contextmanager
    def run(self, name, n_rounds):
        """Nothing follows a round."""
        yield None

    @contextlib.contextmanager
    def part(self, name, estimator):
        """Nothing is told."""
        yield


NO_TASKS = _NoTasks()
