"""The stochastic model: velocity and denoiser, a family of SDEs with the same distribution at each time."""

from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from .._utils.input_checks import DTYPES, by_names
from .._utils.kinds import check_cells
from .._utils.names import registered
from .base import BaseInterpolant


@registered("InterpolantDiffusion")
class InterpolantDiffusion(BaseInterpolant):
    """A diffusion from a normal distribution to a sample, or between two samples, whose noise is chosen after training.

    dX_t = (b + epsilon(t) s)(t, X_t) dt + sqrt(2 epsilon(t)) dW_t,    s = -eta / gamma

    b = argmin E|b(t, x_t) - dx_t/dt|^2,    eta = argmin E|eta(t, x_t) - z|^2,    x_t = I(t, x0, x1) + gamma(t) z

    (Albergo, Boffi & Vanden-Eijnden, 2303.08797, (2.13), (2.19), (2.33)). The distribution of X_t is the same for every
    epsilon >= 0; with learned fields, noise corrects errors of the velocity and costs steps. After ``fit(X)`` the base
    (t = 0) is the standard normal distribution and one network gives both fields. After ``fit(X0, X1)`` the base is the
    distribution of X0, the target (t = 1) that of X1, and two networks are learned. Terms such as "scaled units" are
    explained in the glossary of the documentation.

    Parameters
    ----------
    interpolant : str or Interpolant, default="linear"
        The path x_t = alpha(t) x0 + beta(t) x1 + gamma(t) z from the base (t = 0) to the target (t = 1): "linear",
        "trigonometric", "trigonometric-preserving", "encoding-decoding", "encoding-decoding-preserving", "vp" (one
        sample), "mirror" (one sample, which is both base and target), "learned" or "learned-schedule" (two samples; the
        path, or alpha and beta, are learned in the first third of the steps, so that the path becomes short), or an
        instance of a class of your own.
    gamma : {"auto", "brownian", "quadratic", "sine", "sine-squared", "sigmoid"} or None, default="auto"
        The latent noise gamma(t); "auto" is what the interpolant needs, else "brownian" for two samples and None (no
        latent noise) for one.
    gamma_scale : float, default=1.0
        Factor of gamma^2; gamma is in scaled units.
    coupling : {"independent", "paired", "optimal", "entropic"} or callable, default="independent"
        How rows of two samples are paired in training: at random ("independent"), row i with row i ("paired"), by the
        transport plan of least mean squared distance ("optimal"), or by the entropic plan that belongs to
        gamma="brownian" ("entropic"). Distances are in scaled units. The last two plans are those of all rows or of
        batches, among rows of like conditions (`sklearn_si.couplings.Optimal`, `sklearn_si.couplings.Entropic`).
        With "entropic", the SDE with noise_schedule="constant" and noise_level=gamma_scale / 2 is that of the
        Schroedinger bridge.
    preprocessing : {"auto", "standardize", "whiten", "marginal", "marginal-whiten", "triangular"} or None, \
            default="auto"
        The map from data units to the scaled units in which the model works; None is no map. One sample: "standardize"
        centres and scales each column; "whiten" also rotates to the principal axes; "marginal" maps each column to a
        normal distribution by a smooth monotone function, whose tails can hold outliers, and "marginal-whiten" whitens
        after that; "triangular" centres and scales each column by functions of the columns before it, in an order that
        is chosen. After the latter three, fields and trajectories have no data units. "auto" chooses on validation
        rows, by short runs of 3 to 5 % of the steps, and chooses with it whether the network is built around a
        Gaussian mixture. Two samples: "standardize" (which is "auto") centres each sample and gives each column one
        scale, pooled over both; "whiten" takes the common axes in which both covariances are diagonal.
    base_density : {"auto", "flow", "normal", "standard_normal"}, estimator or None, default="auto"
        The density of the base after ``fit(X0, X1)``, from which that of transported rows follows: "flow" fits a clone
        of this estimator in the same call, to X0 and to as many rows of X1 that were transported to t = 0; "normal" is
        the normal distribution with the moments of X0; "standard_normal" is N(0, I) in data units; an estimator needs
        `fit` and `score_samples`. "auto" is "flow" with target_density="transport", and else nothing. None saves the
        time of a density, and `score_samples` raises.
    target_density : {"auto", "flow", "transport"}, default="auto"
        Which density `score_samples` gives after ``fit(X0, X1)``. "flow" learns X1 alone in the same call, as
        ``fit(X1)`` with these parameters does, and moves its density to earlier times along the ODE; with n_estimators
        above 1 it is an ensemble. "transport" moves the density of the base to X1, so that it is that of the rows that
        `sample` draws, with the errors of two fits. "auto" is "flow" where base_density is "auto", and else
        "transport". `diagnose` tells how far the two are apart.
    noise_level : float, default=1.0
        Size of the diffusion epsilon(t) in `sample`, in scaled units squared per unit of time; 0 is the ODE. For
        start="condition" see there. May be changed after fit.
    noise_schedule : {"gamma", "constant", "optimal"} or callable, default="gamma"
        The dependence of the noise on time: epsilon(t) = noise_level * schedule(t), with the schedule gamma(t)
        (alpha(t) with a Gaussian base), 1, the minimiser of the bound of the Kullback-Leibler divergence (Gaussian base
        only), or your own function of t. May be changed after fit.
    n_steps : int or "auto", default="auto"
        Number of steps of `sample`, and of the chain with likelihood="sde". "auto" is 100 for "euler-maruyama" and the
        chain, and 32 for the steppers of order 2 (100 with a schedule that is neither "gamma" nor "optimal"), times
        half of the `noise_level` where that is above 2, and 1000 at the most; for the ODE it is what `fit` measured to
        be enough (`sampling_grid_`) for "rk4", and 16 for other steppers. Steps of the SDE are shorter where rows meet
        data. May be changed after fit.
    solver : str or callable, default="auto"
        The stepper of `sample`. For the ODE: "euler", "midpoint", "heun", "rk4", "dopri5", "dopri5-adaptive" (step
        sizes by `ode_tol`), "denoising" (Gaussian base) or "distilled" (after `distill`); for the SDE:
        "euler-maruyama", "stochastic-heun" or "stochastic-heun-denoised" (its last step is E[x1 | x_t], without noise).
        "auto" is "rk4" for the ODE and "stochastic-heun" for the SDE. A callable takes (f, x, times), with dx/dt = f(t,
        x), and returns x at the last time. After `distill(log_density=True)`, "distilled" serves densities and
        `transform` as well. May be changed after fit.
    ode_tol : float, default=1e-3
        Largest error of log-densities (in nats) and of transported rows (in scaled units, relative to 1 + their size).
        Each row is solved with finer steps until it is met; rows that miss it are counted in an `IntegrationWarning`.
        May be changed after fit.
    time_distribution : {"auto", "uniform", "logit-normal", "data-end", "arcsine", "beta"}, default="auto"
        Distribution of the times t in training; "auto" is "data-end" for one sample and "logit-normal" for two.
    fields : {"auto", "b", "b+eta", "b+s", "v+eta", "v+s"}, default="auto"
        What is learned: velocity b or drift v = E[dI/dt | x_t], with denoiser eta or score s. "auto" is the velocity
        alone with a Gaussian base, the denoiser alone for a mirror, and both for two samples.
    guidance : float, default=1.0
        Weight w of the condition in classifier-free guidance, w f(t, x | condition) + (1 - w) f(t, x) for each field f;
        1 is the conditional distribution itself. Other values need `condition_dropout` above 0 in fit. May be changed
        after fit.
    condition_dropout : float, default=0.0
        Share of the training rows whose condition is dropped, so that the model can also be asked without a condition.
        It is needed for guidance.
    condition_kinds : dict or None, default=None
        How columns of ``condition=`` are read, by name (by position in an array): "categorical" or "continuous". For
        columns that are left out, and with None for all, numbers and dates are continuous, and everything else is
        categorical.
    dequantize : None, "auto" or list, default=None
        Columns (names or positions) with repeated values, such as counts, rounded or capped numbers. In fit their
        values get uniform noise within a cell, which ends halfway to the neighbouring values (the two outer cells are
        symmetric), so that they have a density. "auto" takes the columns in which one value has more than 5 % of the
        rows, or in which distinct values are fewer than 5 % of the rows. `sample` and `inverse_transform` (after a fit
        of two samples `transform` as well) then return values that fit saw. `score_samples` gives the log-density of
        the variable with noise at the centre of the cell, which estimates log(probability of the value / width of its
        cell); its mean over the noise is a lower bound of that. Values that fit did not see are scored as they are,
        with a warning.
    likelihood : {"ode", "sde"}, default="ode"
        Whose density `score_samples` gives: that of the ODE, or that of the Euler-Maruyama chain of `n_steps` steps at
        `noise_level`. May be changed after fit.
    start : {"base", "condition"}, default="base"
        "condition" is forecasting: sampling from p(x1 | x0) (2303.08797, sec. 3.1). ``fit(X0, X1)`` then takes pairs of
        rows, and ``sample(n, condition=x0)`` draws rows of X1 given rows of X0. The process starts from the given row
        and has no density. Training begins with the linear regression of X1 on X0 with normal residuals. `noise_level`
        is then in units of the noise of training, gamma_scale / 2, with a constant schedule (2403.13724): 1 is the
        Foellmer process itself.
    support : str, tuple or dict, default="real"
        Where columns live: "real", "positive", or a pair (low, high) in the units of the column, of which one may be
        None; one for all columns, or a dict by name or position, in which other columns are "real". A smooth map leads
        to the line first (the logarithm above one bound, the normal quantile between two), densities count its
        Jacobian, and rows that are drawn are never on a bound or outside. Rows of fit that are, are refused, unless
        `dequantize` covers their column. It holds for X0 and X1 alike, and at all times of the path; `base_density` is
        then that of rows on the line.
    network : "mlp" or callable, default="mlp"
        The network of each field. A callable(n_features, n_conditions) returns a torch Module whose forward(t, x,
        condition=None) takes t of shape () or (n,), x of shape (n, n_features) and a condition of shape (n,
        n_conditions), and returns a tensor of the shape of x, all in scaled units.
    hidden_layer_sizes : "auto", int or array-like of int, default="auto"
        Widths of the hidden layers; "auto" is (64, 64, 64) for up to 3 features, (128, 128, 128) for up to 24, and
        (256, 256) for more, since the exact divergence of two layers costs least.
    activation : {"silu", "tanh", "softplus"}, default="silu"
        Activation of the hidden layers.
    dropout : "auto" or float, default="auto"
        Share of the hidden units that are dropped at each training point. "auto" is 0; for one sample a run that
        overfits is followed by runs with dropout, and validation rows choose among them.
    n_estimators : int, default=1
        Number of members of an ensemble (one sample, or the density of the target of two). The further members are
        trained to the rows of fit under random weights (the Bayesian bootstrap) from seeds of their own, with the kind
        of preprocessing, dropout and number of steps of the first, and a fit to draws of the ensemble and the places of
        held-out rows at the base measure its error; `max_time` is shared. The model is then their mixture: its density
        is the mean of theirs, a draw is one of a member chosen at random, and ``score_samples(X,
        return_error="model")`` has intervals for the log-density.
        Maps such as `transform` belong to one member (`estimators_`).
    bf16 : bool or "auto", default="auto"
        Whether matrix products in training use bfloat16; weights, validation and all later evaluations keep their
        precision. "auto" uses it where it was measured to pay: one sample, layers of 128 units or more, and a CPU with
        instructions for it.
    batch_size : int or "auto", default="auto"
        Points in a gradient step; "auto" is 512, and 1024 for one sample of 10,000 training rows or more.
    learning_rate_init : float, default=0.01
        Largest learning rate of Adam; the rate warms up to it and then falls to zero along a cosine.
    max_iter : int or "auto", default="auto"
        Number of gradient steps. "auto" is as many as fit into `max_time`; without `max_time` it is 3000 for two
        samples, and for one it grows with the training rows, from 600 for 1,000 rows to 5,800 for 50,000. The short
        runs that compare preprocessings come in addition.
    max_time : float or None, default=None
        Seconds of training at the most. Where training of one sample, without and with dropout, has overfitted before,
        networks from other seeds take what is left, and the mean velocity of up to four is kept if held-out rows say
        so: a density then costs as much more (`network_.network` is an `AveragedNetwork`). With the default max_iter
        only. The result depends on the speed of the machine, and is not reproducible.
    tol : float, default=0.0
        A validation round whose score does not rise by more than this counts as stale (nats for one sample, units of
        the loss for two).
    n_iter_no_change : int or "auto", default="auto"
        Number of stale validation rounds after which training stops; a round has 100 steps, or 6 % of the steps so far.
        "auto" is 20 for two samples. For one sample training continues until it overfits, that is, until the score of
        validation rows falls while that of training rows rises.
    early_stopping : bool, default=True
        Whether rows are held out for validation: training then stops when their score no longer rises, and keeps the
        weights of the best round (of one sample those of the last, unless the best are surely better).
    validation_fraction : float, default=0.1
        Share of the rows that are held out; at least 50 rows, or a fifth of the rows where that is fewer.
    warm_start : bool, default=False
        Whether the next call of `fit` continues from the fitted networks.
    device : str or torch.device, default="auto"
        Where the model is trained and evaluated; "auto" is CUDA if there is one, else MPS, else the CPU. May be changed
        after fit.
    checkpoint : str or path-like or None, default=None
        File in which `fit` saves its state, about once a second, so that the same call of `fit` continues there after a
        crash and gives the same model to the bit (without `max_time`). It is removed at the end of the fit, and kept
        when Ctrl-C ended it. In a folder, each fit has its own file, named by its data and parameters.
    memory : str, path-like, joblib.Memory or None, default=None
        Folder in which fitted models are kept. A fit with the data, condition, training parameters and seed of an
        earlier one is loaded instead of being learned again, so that a search over parameters that may be changed after
        fit trains only once. Fits whose `random_state` is not an integer are not kept, nor are those that
        `sklearn_si.save` refuses (with a warning).
    verbose : int, default=0
        Whether to print a line for each validation round.
    random_state : int, RandomState instance or None, default=None
        Seed of training and of sampling. Global random number generators are left untouched. May be changed after fit.

    Attributes
    ----------
    network_ : Module
        The velocity b(t, x), in scaled units.
    denoiser_network_ : Module or None
        The denoiser eta(t, x), in scaled units; None where it follows from the velocity or is not known.
    interpolant_ : Interpolant
        The path, in scaled units.
    preprocessing_ : AffineMap, MarginalMap, TriangularMap or SupportedMap
        The map from data units to scaled units at the target.
    base_preprocessing_ : AffineMap, SupportedMap or None
        The map from data units to scaled units at the base of two samples; None with a normal base.
    base_density_ : estimator or None
        The density of the base after a fit of two samples, in data units (on the line, where columns have a support).
    base_sample_ : ndarray of shape (n_samples_0, n_features) or None
        The rows from which `sample` starts: X0, or X with interpolant="mirror"; None with a normal base.
    condition_codec_ : object or None
        The encoder of the condition.
    n_iter_ : int
        Number of gradient steps of the run that was kept. For one sample several runs are compared, and it may be a
        short one; where the mean of several networks was kept, it is that of the first.
    n_networks_ : int
        Number of networks of whose mean the velocity is made: above 1 where a fit with `max_time` had time left.
    loss_ : float
        Mean training loss of the last round.
    loss_curve_ : list of float
        Mean training loss of each round.
    validation_scores_ : list of float or None
        Score of the validation rows after each round: their log-likelihood in nats (one sample), or minus the loss (two
        samples). None without early stopping.
    best_validation_score_ : float
        Validation score of the weights that were kept. For one sample it may be that of the closed form from which
        training starts, which no round then exceeds.
    history_ : list of dict
        The rounds of all trainings of the fit in order: `run` (the number of the training), `training` ("compare",
        "path", "train" or "member"), `n_iter`, `learning_rate` (the largest of its training), the mean `loss`,
        `validation_score` (None without held-out rows), and whether the round was `taken_back` because its loss or its
        score exploded. Training then continued from the best weights at a lower rate. `stopped` says in the last round
        of a training why it ended: "max_iter", "max_time", "n_iter_no_change", "overfitting", "interrupted" or
        "diverged". ``pandas.DataFrame(model.history_)`` is a table of them.
    target_density_ : estimator or None
        The density of the target of two samples, if it has one of its own, as a fitted estimator of one sample.
    estimators_ : list of estimators
        The members, each as a fitted estimator with n_estimators=1; networks and records of training above are those of
        the first.
    sampling_grid_ : tuple of (int, str) or None
        Number of RK4 steps and spacing of the time grid with which `sample` reproduces the exact flow within 0.015
        (root mean square over coordinates, relative to 1 + their size, in scaled units), as measured in fit; None where
        `sample` solves no ODE.
    action_curve_ : list of float
        Only with a learned path: E|b|^2 (with latent noise E|b + epsilon s|^2) while it was learned, in scaled units
        squared.
    coupling_method_ : {"semidiscrete", "whole", "batches"}
        Only where rows are paired by a plan: by one of all rows from a potential, by an exact one of all rows, or in
        batches. With verbose=1 a line says why.
    seed_ : int
        The seed of the fit.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Names of the columns, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantDiffusion
    >>> rng = np.random.default_rng(0)
    >>> X0, X1 = rng.normal(size=(300, 2)), rng.normal(3.0, 0.5, size=(400, 2))
    >>> model = InterpolantDiffusion(max_iter=50, base_density=None, random_state=0).fit(X0, X1)
    >>> model.sample(4).shape
    (4, 2)
    >>> model.set_params(noise_level=0.1).sample(4).shape
    (4, 2)
    """

    _learns_denoiser = True

    _parameter_constraints: ClassVar[dict] = {
        **BaseInterpolant._parameter_constraints,
        "base_density": [StrOptions({"auto"}), *BaseInterpolant._parameter_constraints["base_density"]],
        "likelihood": [StrOptions({"ode", "sde"})],
        "start": [StrOptions({"base", "condition"})],
    }

    def __init__(
        self,
        interpolant="linear",
        gamma="auto",
        gamma_scale=1.0,
        coupling="independent",
        preprocessing="auto",
        base_density="auto",
        target_density="auto",
        noise_level=1.0,
        noise_schedule="gamma",
        n_steps="auto",
        solver="auto",
        ode_tol=1e-3,
        time_distribution="auto",
        fields="auto",
        guidance=1.0,
        condition_dropout=0.0,
        condition_kinds=None,
        dequantize=None,
        support="real",
        likelihood="ode",
        start="base",
        network="mlp",
        hidden_layer_sizes="auto",
        activation="silu",
        dropout="auto",
        n_estimators=1,
        bf16="auto",
        batch_size="auto",
        learning_rate_init=0.01,
        max_iter="auto",
        max_time=None,
        tol=0.0,
        n_iter_no_change="auto",
        early_stopping=True,
        validation_fraction=0.1,
        warm_start=False,
        device="auto",
        checkpoint=None,
        memory=None,
        verbose=0,
        random_state=None,
    ):
        self.interpolant = interpolant
        self.gamma = gamma
        self.gamma_scale = gamma_scale
        self.coupling = coupling
        self.preprocessing = preprocessing
        self.base_density = base_density
        self.target_density = target_density
        self.noise_level = noise_level
        self.noise_schedule = noise_schedule
        self.n_steps = n_steps
        self.solver = solver
        self.ode_tol = ode_tol
        self.time_distribution = time_distribution
        self.fields = fields
        self.guidance = guidance
        self.condition_dropout = condition_dropout
        self.condition_kinds = condition_kinds
        self.dequantize = dequantize
        self.support = support
        self.likelihood = likelihood
        self.start = start
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.n_estimators = n_estimators
        self.bf16 = bf16
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.max_time = max_time
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.device = device
        self.checkpoint = checkpoint
        self.memory = memory
        self.verbose = verbose
        self.random_state = random_state

    def _forecasts(self):
        return self.start == "condition"

    def _scores_chain(self):
        return self.likelihood == "sde"

    def _draw(self, n_samples, condition, sampling, generator):
        model = self.model_
        if not model.is_forecast:
            return super()._draw(n_samples, condition, sampling, generator)
        return model.forecast(self._start_rows(condition, n_samples), n_samples, sampling, generator)

    def _start_rows(self, start, n_samples):
        """The rows that a forecast starts from: one for all, or one for each."""
        if start is None:
            raise ValueError("A model with start='condition' needs the start rows: sample(n, condition=x0).")
        X0 = np.asarray(check_cells(by_names(self, start, "condition"), "condition"), dtype=DTYPES[0])
        X0 = self._points(X0[None] if X0.ndim == 1 else X0, "condition")
        if len(X0) not in (1, n_samples):
            raise ValueError(
                f"condition has {len(X0)} rows, but expected one for all or one for each of {n_samples} rows."
            )
        return self._in_support(X0, None, "condition")
