"""Tables in, tables out: a model of whole rows that fills in any part of them."""

import numbers
import os
import time
import warnings
from typing import Any, ClassVar

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._estimators.flow import InterpolantFlow
from .._estimators.in_group import fit_by_first
from .._estimators.memory import open_memory
from .._estimators.resume import open_checkpoint
from .._model.lost_rows import settled
from .._utils.callbacks import FollowedEstimator, Tasks
from .._utils.callers import users_level
from .._utils.frames import index_of
from .._utils.input_checks import check_count
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from .._utils.tensors import draw_seed, resolve_device
from .._utils.weights import weighted_rows
from ..persistence._pickling import PackedNetworks
from ._chain import log_mass
from ._codec import TableCodec
from ._columns import warn_of_identifiers
from ._completion import complete
from ._given_cells import known_cells, nothing_known
from ._layout import layout_of
from ._learning import Budget, CodedRows, fit_codes, fit_values, joined_rounds, refuse_support
from ._missing import known_of_given
from ._raking import RakingMethods
from ._unseen import told_unseen, unseen_cells
from ._values import ABSENT, ASKED, straightened

__all__ = ["TableSynthesizer"]


@registered("tables.TableSynthesizer")
class TableSynthesizer(RakingMethods, PackedNetworks, FollowedEstimator, LinkedEstimator, DensityMixin, BaseEstimator):
    """A model of the rows of a mixed-type table: it draws new rows, completes given ones and scores them.

    P(k, x) = prod_j P(k_j | k_1, ..., k_{j-1})  p(v | k) prod |dv/dx|

    with k the codes of the cells (categories, spikes, missing values) and v the values of continuous cells
    (`TableCodec`). The codes follow the masked interpolant, in which k_t = k with probability t, and hidden otherwise.
    Its velocity is the posterior of hidden cells given visible ones (Gat et al. 2024, "Discrete flow matching", arXiv
    2407.15595; Ou et al. 2024, arXiv 2406.03736), and it is solved without error by revealing one cell after the other.
    The values follow an `InterpolantFlow` given the codes. Both are trained under random masks, so that any part of a
    row may be given.

    Parameters
    ----------
    kinds : dict or None, default=None
        The kind of some columns ("categorical", "discrete", "continuous", or ("circular", low, high) of angles, which
        are cut open where fit saw few of them); others are found, as `TableCodec` does.
    min_frequency : int, float or None, default=None
        Levels in fewer rows (than this share) have one code together.
    flow : InterpolantFlow or None, default=None
        What models the values; None is InterpolantFlow(preprocessing="standardize", learning_rate_init=1e-3), with
        the `validation_fraction` of the table.
    hidden_layer_sizes : "auto" or tuple of (int, int), default="auto"
        Width and number of the blocks of the network of the codes; "auto" is (64, 1), (128, 2), (256, 2) or (512, 2)
        by the number of rows.
    dropout : float, default=0.4
        Share of its hidden units that is dropped at each row of a step.
    learning_rate_init : float, default=2e-3
        Largest rate of Adam for the codes: warm-up, then a cosine to zero.
    max_iter : int or "auto", default="auto"
        Gradient steps for the codes, and for the values; "auto" grows with the number of rows, and averages two
        networks of the codes where fit has 1,000 to 20,000 rows.
    max_time : float or None, default=None
        Seconds of training. Gives up reproducibility.
    constraints : "auto", None or list, default="auto"
        Relations between columns that every row keeps which is drawn or completed: `Inequality`, `Sum` and
        `FixedCombinations`. "auto" finds them: those that hold in every row in which their columns have values, and
        would not by chance.
    validation_fraction : float, default=0.1
        Share of the rows held out, but at least 50, or a fifth where there are fewer than 250; they choose the weights
        that are kept. A `flow` that is given has a share of its own.
    device : str or torch.device, default="auto"
        "auto" takes CUDA, then MPS, then the CPU. May be changed after fit.
    checkpoint : str or path-like or None, default=None
        A file from which `fit` goes on after a crash, as in `InterpolantFlow`.
    memory : str, path-like, joblib.Memory or None, default=None
        A folder in which fits are kept: a fit with the data, conditions, training parameters and seed of a kept one is
        loaded and not learned again, so that a search over parameters that may be changed after fit trains once. Fits
        whose `random_state` is no integer are not kept, nor are those that `sklearn_si.save` refuses (with a warning).
    verbose : int, default=0
        Print a line a round.
    random_state : int, RandomState instance or None, default=None
        Seed of training and sampling; with it, global generators are untouched. May be changed after fit.

    Attributes
    ----------
    codec_ : TableCodec
        What codes the columns.
    masked_network_ : MaskedNetwork, MeanNetwork or None
        The network of the codes, or the mean of two; None where no column has several.
    value_model_ : ValueModel or None
        The model of the values, with its `flow_`; None where no column is continuous.
    constraints_ : list
        The relations that are kept, given or found.
    history_ : list of dict
        The rounds of all trainings in order, as in `InterpolantFlow`; `training` is "codes" (and
        "codes 2"), or "values: " and the training of the flow.
    validation_scores_ : list of float or None
        The scores of those of them that were not taken back: the mean log-probability of the codes of held-out rows,
        then the mean log-density of their values, in nats. None without held-out rows.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.tables import TableSynthesizer
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.choice(["a", "b"], size=300)
    >>> X = np.column_stack([kind, np.where(kind == "a", 1, 5) + rng.integers(3, size=300)]).astype(object)
    >>> table = TableSynthesizer(max_iter=100, random_state=0).fit(X)
    >>> table.sample(2).shape
    (2, 2)
    """

    _networks: ClassVar[tuple[str, ...]] = ("masked_network_",)

    # Where metadata is routed, weights that are given are those of the rows, in fit and in score alike.
    __metadata_request__fit: ClassVar[dict] = {"sample_weight": True}
    __metadata_request__score: ClassVar[dict] = {"sample_weight": True}

    _parameter_constraints: ClassVar[dict] = {
        "kinds": [dict, None],
        "min_frequency": [
            Interval(numbers.Integral, 1, None, closed="left"), Interval(numbers.Real, 0, 1, closed="neither"), None,
        ],
        "flow": [InterpolantFlow, None],
        "hidden_layer_sizes": [StrOptions({"auto"}), tuple],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "learning_rate_init": [Interval(numbers.Real, 0, None, closed="neither")],
        "max_iter": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "constraints": [StrOptions({"auto"}), list, tuple, None],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "device": [str, torch.device],
        "checkpoint": [str, os.PathLike, None],
        "memory": [str, os.PathLike, joblib.Memory, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }  # fmt: skip

    def __init__(
        self,
        kinds=None,
        min_frequency=None,
        flow=None,
        hidden_layer_sizes="auto",
        dropout=0.4,
        learning_rate_init=2e-3,
        max_iter="auto",
        max_time=None,
        constraints="auto",
        validation_fraction=0.1,
        device="auto",
        checkpoint=None,
        memory=None,
        verbose=0,
        random_state=None,
    ):
        self.kinds, self.min_frequency, self.flow = kinds, min_frequency, flow
        self.hidden_layer_sizes, self.dropout, self.learning_rate_init = hidden_layer_sizes, dropout, learning_rate_init
        self.max_iter, self.max_time, self.validation_fraction = max_iter, max_time, validation_fraction
        self.constraints, self.device, self.checkpoint, self.memory = constraints, device, checkpoint, memory
        self.verbose, self.random_state = verbose, random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the model to the rows of a table.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_columns)
            A pandas frame, a frame that narwhals supports, or an array, with numbers, text, booleans, categories, dates
            and missing values.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, finite and not negative; only their ratios count. Rows of weight zero are left out
            before any other check. The shares of the drawn rows follow the weights; kinds, levels, intervals and
            relations of columns are those of all other rows.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            As `TableCodec.fit`, and when weights are negative, not finite, all zero or not one for each row.
        """
        return fit_by_first(self, self._fit_to_all, X=X, sample_weight=sample_weight)

    def _fit_to_all(self, X, sample_weight):
        X, weight = weighted_rows(X, sample_weight)
        samples = {"X": X, "sample_weight": weight}
        memory = open_memory(self, samples)
        if memory.recall(self):
            return
        with open_checkpoint(self, samples) as checkpoint:
            self._fit(X, weight, checkpoint)
        memory.keep(self)

    def _fit(self, X, weight, checkpoint):
        began = time.perf_counter()
        refuse_support(self.flow)
        seed, tasks = checkpoint.seed, Tasks(self, X)
        codec = TableCodec(self.kinds, self.min_frequency, unseen="unknown", random_state=seed)
        codec._fit(X, binned=True, constraints=self.constraints)
        readings, rng = codec._readings(X), np.random.RandomState(seed % 2**32)
        codes, values = codec._encoded(readings, rng)
        codec.table_.owner = type(self).__name__
        warn_of_identifiers(codec.columns_, readings)
        self.codec_, self.n_features_in_ = codec, codec.n_features_in_
        self.constraints_ = codec.relations_.constraints
        self.__dict__.pop("feature_names_in_", None)
        self.__dict__.update({n: v for n, v in vars(codec).items() if n == "feature_names_in_"})
        columns = codec.columns_
        if weight is not None:
            columns[:] = [c.weighted(r, k, weight) for c, r, k in zip(columns, readings, codes.T, strict=True)]
        self._layout = layout = layout_of(columns)
        if layout.valued:
            told = layout.features(codes), codes[:, layout.coded]
            values = straightened(columns, layout.valued, readings, codes, values, told, rng)
        followed = layout, CodedRows(codes, values, weight), Budget(self.max_time, began), tasks, checkpoint
        self.masked_network_: Any
        self.masked_network_, histories = fit_codes(self, *followed)
        self.value_model_: Any = None
        if layout.valued:
            left = "before its values were learned: they get little more than a normal distribution."
            with checkpoint.interruptible(lambda: layout.coded, left):
                self.value_model_ = fit_values(self, *followed, any(one.by_user for one in histories))
            self.value_model_ = self.value_model_ or fit_values(self, *followed, True)
        self.history_ = joined_rounds(histories, self.value_model_)
        scores = [one["validation_score"] for one in self.history_ if not one["taken_back"]]
        self.validation_scores_ = [score for score in scores if score is not None] or None
        tasks.end()
        return self

    def sample(self, n_samples=None, *, given=None, random_state=None):
        """Draw rows; those of `given` keep the cells that it has.

        Each row follows the learned distribution, independently of the others.

        Parameters
        ----------
        n_samples : int or None, default=None
            Number of rows; None is one, or one for each row of `given`.
        given : frame of shape (n_samples, any), dict of its columns or cells, or pandas Series, default=None
            Cells that are fixed, in any of the columns; missing values (NaN, None, NA) are drawn, and a cell
            `sklearn_si.tables.MISSING` stays missing. One row is used for all; a Series is one row.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None means the estimator's own, and with None in both the rows are fresh at each call.

        Returns
        -------
        X : frame or ndarray of shape (n_samples, n_columns)
            As the table of fit: names, order, dtypes, levels, missing values.

        Raises
        ------
        ValueError
            When `given` has an unknown column, or a level that fit has not seen, or asks for MISSING where fit saw no
            missing values.
        IntegrationError
            When more than 1 % of the rows, and more than ten, become infinite or NaN in each of four draws; fewer are
            counted in an `IntegrationWarning`, and their numbers follow a normal distribution given their categories.
        """
        check_is_fitted(self)
        given = None if isinstance(given, dict) and not given else given
        if given is None:
            n = 1 if n_samples is None else n_samples
            known = nothing_known(check_count(n, "n_samples"), self.n_features_in_)
        else:
            given, known = known_of_given(self.codec_, given)
            n = len(known.codes)
            if n_samples is not None and n not in (1, n_samples):
                raise ValueError(f"Got n_samples={n_samples}, but given has {n} rows: leave n_samples out.")
            known = known.rows(np.repeat(np.arange(n), n_samples or 1 if n == 1 else 1))
        seed = self._seed(random_state)
        codes, values = complete(self, known, seed)
        index = None if given is None or len(given) != len(codes) else index_of(given)
        return self.codec_._decoded(codes, values, np.random.RandomState(seed % 2**32), known.readings, index, True)

    def impute(self, X, *, n_draws=1, random_state=None):
        """Fill the missing values of a table by draws given what its rows have.

        Parameters
        ----------
        X : table like that of fit
        n_draws : int, default=1
            Number of completed tables.
        random_state : int, RandomState instance or None, default=None
            As in `sample`.

        Returns
        -------
        X_completed : table like that of fit, or list of n_draws tables if n_draws > 1
            Cells that were there are unchanged, and so is the index of a pandas frame; columns that fit has seen
            nothing but missing values of keep them.
        """
        check_is_fitted(self)
        n_draws = check_count(n_draws, "n_draws")
        seeds = np.random.SeedSequence(self._seed(random_state)).generate_state(n_draws)
        known = known_cells(self.codec_, X, "X")
        tables = []
        for seed in seeds.tolist():
            codes, values = complete(self, known, seed, without_gaps=True)
            rng = np.random.RandomState(seed)
            tables.append(self.codec_._decoded(codes, values, rng, known.readings, index_of(X), True))
        return tables if n_draws > 1 else tables[0]

    def score_samples(self, X):
        """The log-probability of each row: the pmf of its categorical cells times the density of its values.

        Parameters
        ----------
        X : table like that of fit

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in units of the continuous columns. A cell that fit has not seen (a level, a gap where there were
            none) has no mass of its own: its row is scored by the other cells, and a warning counts such rows. After a
            fit of n rows, breaking a relation of `constraints_` has the mass of one unseen row in n + 2, spread evenly
            over what could stand there; a warning counts such rows too. Where
            values are absent, the density of the others is exact as far as the flow has learned that what stands in
            the place of absent ones is independent of them.
        """
        check_is_fitted(self)
        raw, relations = self.codec_._cells_of(X), self.codec_.relations_
        readings = relations.forward(raw)
        codes, values = self.codec_._encoded(readings, None)
        unseen = unseen_cells(self.codec_, raw, codes)
        unseen[:, [j for relation in relations.joint for j in relation.members]] = False  # they break the relation
        if unseen.any():
            warnings.warn(
                f"{int(unseen.any(1).sum())} of {len(codes)} rows hold categories or missing values that fit has not "
                f"seen, in the columns {told_unseen(self.codec_, raw, unseen)}: they are scored by their other cells, "
                "which is too high. Fit on a table that has them, or leave them out.",
                UserWarning,
                stacklevel=users_level(),
            )
        total = self._of_relations(raw, codes, values)
        if self._layout.coded:
            device = resolve_device(self.device)
            known, _ = self._layout.tensors(codes, values, device)
            nothing = torch.full((len(codes), len(self._layout.valued)), torch.nan, device=device)
            total += log_mass(self.masked_network_, known, nothing, range(len(self._layout.coded))).cpu().numpy()
        if self._layout.valued:
            states = np.where(self._layout.have_values(codes), ASKED, ABSENT)
            parts = values[:, self._layout.valued], self._layout.features(codes), codes[:, self._layout.coded]
            total += self.value_model_.log_density(*parts, states)
            total += self.codec_._log_slopes(readings, self._layout.valued, codes)
        return total

    def _of_relations(self, raw, codes, values):
        """The log-mass of keeping or breaking each relation; cells of rows that break one are made unknown.

        A row that breaks a relation has the mass of one unseen row in n + 2, spread evenly over what could stand there.
        """
        relations, total = self.codec_.relations_, np.zeros(len(codes))
        for relation, j, rows in relations.broken(raw):
            mass = 1 / (relations.n_rows + 2)
            if rows.any():
                warnings.warn(
                    f"{int(rows.sum())} of {len(rows)} rows break {relation.constraint}, which holds in all rows of "
                    f"fit: breaking it has the mass of one unseen row, {mass:.2g}.",
                    UserWarning,
                    stacklevel=users_level(),
                )
            total += np.where(rows, np.log(mass) - relation.log_room, np.log1p(-mass))
            codes[rows, j], values[rows, j] = -1, np.nan
        return total

    def score(self, X, y=None, sample_weight=None):
        """The mean of `score_samples`.

        Parameters
        ----------
        X : table like that of fit
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean; rows of weight zero are left out.

        Returns
        -------
        score : float

        Raises
        ------
        IntegrationError
            When a row becomes infinite or NaN.
        """
        X, weight = weighted_rows(X, sample_weight)
        value = settled(self.score_samples(X), "computing log-densities", strict=True)
        return float(np.average(value, weights=weight))

    def predict_proba(self, X, *, target):
        """Probabilities of the levels of one column given the others.

        Parameters
        ----------
        X : frame or array
            With or without the column `target`; what it holds there is not looked at.
        target : object
            Name of a categorical or discrete column (number, for an array).

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_levels)
            In the order of `levels(target)`.

        Raises
        ------
        ValueError
            When there is no such column, or it is continuous or constant.
        """
        check_is_fitted(self)
        j, relation = self._place(target)
        place = self.codec_.table_.names.index(target)
        known = known_cells(self.codec_, X, "X", gaps=True, without=[place])
        known.codes[:, j] = -1
        cells, shown = self._layout.tensors(known.codes, known.values, resolve_device(self.device))
        with torch.no_grad():
            logs = self.masked_network_.column(self._layout.coded.index(j), cells, shown)
        p = logs.exp().cpu().numpy().astype(np.float64)
        if relation is not None:
            p = np.where(known.allowed.get(j, True), p, 0.0) @ relation.levels(place)[1]
        p = p[:, : len(self.levels(target))]
        return p / p.sum(1, keepdims=True)

    def levels(self, target):
        """The levels of a categorical or discrete column, in the order of `predict_proba`.

        Parameters
        ----------
        target : object
            Name of the column.

        Returns
        -------
        levels : ndarray of shape (n_levels,)
        """
        check_is_fitted(self)
        j, relation = self._place(target)
        place = self.codec_.table_.names.index(target)
        return self.codec_.columns_[j].levels if relation is None else relation.levels(place)[0]

    def _place(self, target):
        names = self.codec_.table_.names
        if target not in names:
            raise ValueError(f"Got target={target!r}, but expected one of the columns {names}.")
        place = names.index(target)
        for relation in self.codec_.relations_.joint:
            if place in relation.members:
                return relation.members[0], relation
        for relation in self.codec_.relations_.linear:
            if place in relation.columns:
                raise ValueError(
                    f"Column {target!r} is tied to others by {relation.constraint}, and predict_proba cannot take that "
                    "into account: choose another column, or fit with constraints=None."
                )
        column = self.codec_.columns_[place]
        if column.is_continuous or column.n_codes < 2 or column.merged is not None:
            raise ValueError(
                f"Column {target!r} is {column.kind}{' with merged levels' * (column.merged is not None)}, but "
                "predict_proba needs one with levels: choose another, or set its kind ('discrete') before the fit."
            )
        return place, None

    def __sklearn_tags__(self):
        """Missing values and columns of any kind are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    def _seed(self, random_state):
        return draw_seed(self.random_state if random_state is None else random_state)
