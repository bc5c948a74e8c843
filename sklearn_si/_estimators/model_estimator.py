"""The methods of all estimators with a fitted model: sampling, transport, fields, densities and diagnostics."""

from typing import ClassVar

from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, TransformerMixin

from .._utils.after_fit import AFTER_FIT
from .._utils.callbacks import FollowedEstimator
from .._utils.input_checks import check_count
from .._utils.links import LinkedEstimator
from .._utils.tensors import SAMPLE_STREAM, make_generator
from ..persistence._pickling import PackedNetworks
from .densities import DensityMethods
from .diagnostics import DiagnosticMethods
from .fields import FieldMethods

# Attributes that only some fits and methods set; a new fit removes those of an earlier one.
_LEFT_BY_SOME = ("distillation_report_", "rectification_report_", "action_curve_", "coupling_method_")


class ModelEstimator(
    FieldMethods,
    DensityMethods,
    DiagnosticMethods,
    PackedNetworks,
    FollowedEstimator,
    LinkedEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    DensityMixin,
    BaseEstimator,
):
    """An estimator that draws rows from its fitted model and transports rows along it."""

    _networks: ClassVar[tuple[str, ...]] = ("model_",)

    # What a search or a Pipeline hands over where metadata is routed: a conditional model cannot be scored without its
    # condition, and weights that are given are those of the rows. X0 and X1 travel by position and are no metadata.
    __metadata_request__fit: ClassVar[dict] = {
        "X0": "$UNUSED$", "X1": "$UNUSED$", "condition": True, "sample_weight": True,
    }  # fmt: skip
    __metadata_request__score: ClassVar[dict] = {"condition": True, "sample_weight": True}
    __metadata_request__transform: ClassVar[dict] = {"condition": True}
    __metadata_request__inverse_transform: ClassVar[dict] = {"condition": True}

    def _take(self, model, record):
        """Make a fitted model the estimator's own."""
        for name in _LEFT_BY_SOME:
            self.__dict__.pop(name, None)
        self.model_ = model
        for name, value in record.items():
            setattr(self, name, value)

    def fit_transform(self, X, y=None, *, condition=None, sample_weight=None):
        """Fit, and move the rows of the first argument to the other end of the path.

        Parameters
        ----------
        X, y : array-like
            X0 and X1 of `fit`, under the names that scikit-learn gives them in transformers.
        condition : array-like, default=None
            As in `fit`; it goes to `transform` as well, row by row, and so needs as many rows as X.
        sample_weight : array-like, default=None
            As in `fit`; rows of weight zero are moved as well.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The moved rows, as from `transform`.
        """
        return self.fit(X, y, condition=condition, sample_weight=sample_weight).transform(X, condition=condition)

    def sample(self, n_samples=1, *, condition=None, random_state=None):
        """Draw rows of the target.

        dX = b dt,    or    dX = (b + epsilon s) dt + sqrt(2 epsilon) dW,    from t = 0 to 1

        (2303.08797, (2.32) with noise_level=0, (2.33) above it), from a row of the base: standard normal after a fit of
        one sample, a random row of X0 after a fit of two.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all draws, or one for each. With
            start="condition", the rows from which the process starts.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None is the estimator's own `random_state`; if that is None too, each call draws other
            rows.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units, in the dtype of the rows given to fit: an array, also after a fit to a frame, or a frame
            with the names of fit after ``set_output(transform="pandas")``. A row that becomes infinite or NaN is drawn
            again, at most three times; such rows are counted in an `IntegrationWarning`.

        Raises
        ------
        IntegrationError
            When more than 1 % of the rows become infinite or NaN in each of their four draws.
        """
        model = self._ready()
        n_samples, sampling = check_count(n_samples, "n_samples"), self._sampling()
        model.check_sampling(sampling)
        generator = make_generator(self._seed_of(random_state), SAMPLE_STREAM, self._evaluation().device)
        X = self._draw(n_samples, condition, sampling, generator)
        return self._wrapped(X, condition)

    def _renew_base(self):
        """Give the density of the base of a loaded model this estimator's parameters that may be changed after fit."""
        base = self.model_.base_density
        if self.base_density in ("auto", "flow") and base is not None:
            fresh = self._base_flow(None).get_params(deep=False)
            names = [name for name in AFTER_FIT[type(base).__name__] if name != "random_state"]
            base.set_params(**{name: fresh[name] for name in names})

    def _draw(self, n_samples, condition, sampling, generator):
        """Rows of the target, by checked settings."""
        return self.model_.sample(n_samples, sampling, generator, condition, self._guidance())

    def resample(self, X, *, condition=None, random_state=None):
        """Draw new rows near given ones, from the same distribution, by the SDE of a mirror model.

        dX = (epsilon - gamma gamma_dot) s dt + sqrt(2 epsilon) dW    (2303.08797, sec. 3.3)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units. The larger `noise_level`, the further they move; with 0 they stay where they are.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.
        random_state : int, RandomState instance or None, default=None
            Seed of the noise; None is the estimator's own `random_state`.

        Returns
        -------
        X_new : ndarray or frame of shape (n_samples, n_features)
            The new rows, in data units and in the container that `set_output` asks for.

        Raises
        ------
        ValueError
            When the model was not fitted with interpolant="mirror".
        """
        model = self._ready()
        if not model.is_mirror:
            raise ValueError(
                "resample needs interpolant='mirror': other models move rows to another distribution (`transform`)."
            )
        rows, sampling = self._placed(self._validate_rows(X), model.target_grid), self._sampling()
        model.check_sampling(sampling)
        generator = make_generator(self._seed_of(random_state), SAMPLE_STREAM, self._evaluation().device)
        return self._wrapped(model.resample(rows, sampling, generator, condition, self._guidance()), X)

    def __sklearn_tags__(self):
        """The tags of scikit-learn: float32 and float64 are preserved; X must be dense and finite."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
