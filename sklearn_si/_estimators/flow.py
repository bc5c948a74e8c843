"""The deterministic model: a velocity, its ODE, its exact log-density."""

from .._utils.names import registered
from .base import BaseInterpolant


@registered("InterpolantFlow")
class InterpolantFlow(BaseInterpolant):
    """A normalizing flow learned by regression on a stochastic interpolant.

    dX_t/dt = b(t, X_t),    b = argmin E|b(t, x_t) - dx_t/dt|^2,    x_t = I(t, x0, x1) + gamma(t) z

    (2209.15571, (9); 2303.08797, (2.13)). One sample: from the standard normal law to the law of X.
    Two samples: from the law of X0 to the law of X1.

    Parameters
    ----------
    interpolant : str or Interpolant, default="linear"
        The path x_t = alpha(t) x0 + beta(t) x1 + gamma(t) z between base and target: "linear", "trigonometric",
        "trigonometric-preserving", "encoding-decoding", "encoding-decoding-preserving", "vp" (one sample),
        "mirror" (one sample, from its law to itself), "learned" or "learned-schedule" (two samples: the path, or alpha
        and beta, are learned in the first third of the steps, until it is short), or an instance of your own class.
    gamma : {"auto", "brownian", "quadratic", "sine", "sine-squared", "sigmoid"} or None, default="auto"
        The latent noise; "auto" is what the interpolant needs, else none.
    gamma_scale : float, default=1.0
        Factor of gamma^2.
    coupling : {"independent", "paired", "optimal", "entropic"} or callable, default="independent"
        How rows of the two samples are paired in training: at random, row i with row i, by the plan of least mean
        squared distance in scaled units, or by the entropic plan, tied to gamma ("brownian"); the last two in batches
        (`sklearn_si.couplings.Optimal`, `Entropic`), and among rows of like conditions.
    preprocessing : {"auto", "standardize", "whiten", "marginal", "marginal-whiten"} or None, default="auto"
        The scaled units in which the interpolant lives. One sample: each column centred and scaled, or the principal
        axes as well ("whiten"), or a smooth monotone map of each column to a normal law, with tails that bear
        outliers ("marginal"), and then the axes ("marginal-whiten"); after the latter two the fields and trajectories
        have no data units. "auto" chooses on validation rows, and with it whether the network is built around
        a Gaussian mixture, by short runs of 3 to 5 % of the steps before the long one. Two samples: one scale a
        feature, pooled over both, each end centred ("auto" is "standardize"), or the common axes in which both
        covariances are diagonal ("whiten").
    base_density : {"flow", "normal", "standard_normal"}, estimator or None, default="flow"
        After fit(X0, X1), the density of the base: a clone of this estimator fitted in the same call
        to X0 and to as many rows of X1, carried back by the bridge, the normal law with its moments,
        N(0, I), any estimator with `fit` and `score_samples`, or None, which saves the time and makes
        `score_samples` raise.
    noise_level : float, default=0.0
        Size of the diffusion epsilon(t) in `sample`; 0 is the ODE. Values above 0 need a
        Gaussian base (one sample), where the velocity gives the score. May be changed after fit.
    noise_schedule : {"gamma", "constant", "optimal"} or callable, default="gamma"
        epsilon(t) = noise_level * schedule(t): gamma(t) (alpha(t) with a Gaussian base), one, the minimiser of the
        KL bound (Gaussian base only), or a function of t. May be changed after fit.
    n_steps : int or "auto", default="auto"
        Steps of `sample`. "auto" is as many as `fit` found to be enough (`sampling_grid_`), 16 with another stepper
        than "rk4", and 100 with noise. May be changed after fit.
    solver : str or callable, default="auto"
        The stepper of `sample`: "euler", "midpoint", "heun", "rk4", "dopri5", "dopri5-adaptive" (steps by `ode_tol`),
        "denoising" (Gaussian base) or "distilled" (after `distill`) for the ODE; "euler-maruyama", "stochastic-heun" or
        "stochastic-heun-denoised" (its last step is E[x1 | x_t], without noise) for the SDE; "auto" is "rk4" and
        "stochastic-heun". A callable takes (f, x, times) and returns x at the last time. May be changed after fit.
    ode_tol : float, default=1e-3
        Error allowed in log-densities (nats) and carried rows (relative); each row is refined until it
        is met. May be changed after fit.
    time_distribution : {"auto", "uniform", "logit-normal", "data-end", "arcsine", "beta"}, default="auto"
        Distribution of t in training; "auto" is "data-end" for one sample and "logit-normal" for two.
    fields : {"auto", "b", "b+eta", "b+s", "v+eta", "v+s"}, default="auto"
        What is learned: velocity b or drift v, denoiser eta or score s. "auto" is b, and eta for a mirror.
    guidance : float, default=1.0
        Weight of the condition in classifier-free guidance; 1 is the conditional law. May be changed after fit.
    condition_dropout : float, default=0.0
        Share of training rows whose condition is dropped, as guidance and sampling without a condition need.
    condition_kinds : dict or None, default=None
        How columns of `condition=` are read, by name (by number in an array): "categorical" for classes whatever their
        names, or "continuous" for a quantity. None and columns left out: numbers and dates are quantities, all else
        are classes.
    dequantize : None, "auto" or list, default=None
        Columns (names or positions) whose repeated values get uniform noise within their cells in fit, which gives them
        a density; "auto" takes those in which one value has more than 5 % of the rows, or distinct values are fewer
        than 5 % of them. A cell ends halfway to the neighbouring values; the outer two are symmetric. Afterwards
        `sample` and `inverse_transform` (after a fit of two samples `transform` as well) return values that fit saw.
        `score_samples` gives the log-density of the variable with noise at the centre of the value's cell, an estimate
        of log(mass of the cell / its width); its mean over the noise is a lower bound of that. Values that fit did not
        see are scored where they are, with a warning.
    network : "mlp" or callable, default="mlp"
        A factory callable(n_features, n_conditions) -> Module with forward(t, x, condition=None).
    hidden_layer_sizes : "auto", int or array-like of int, default="auto"
        Widths of the hidden layers; "auto" is (64, 64, 64) up to 3 features, (128, 128, 128) up to 24, and (256, 256)
        beyond, where the closed divergence of two layers pays.
    activation : {"silu", "tanh", "softplus"}, default="silu"
        Activation of the hidden layers.
    dropout : "auto" or float, default="auto"
        Share of the hidden units that is dropped at each point of a gradient step. "auto" is 0 and, for one sample, a
        second run with dropout where the first overfits: validation chooses.
    bf16 : bool or "auto", default="auto"
        Whether training multiplies matrices in bfloat16 (weights and all that is evaluated stay as they are). "auto" is
        where it was measured to pay: one sample, layers of 128 and more, a CPU with instructions for it.
    batch_size : int or "auto", default="auto"
        Points in a gradient step; "auto" is 512, and 1024 for one sample of 10,000 training rows or more.
    learning_rate_init : float, default=0.01
        Largest rate of Adam: warm-up, then a cosine to zero.
    max_iter : int or "auto", default="auto"
        Gradient steps; "auto" is as many as fit in `max_time`. Without one it is 3000 for two samples, and for one
        grows with the training rows, 600 for 1,000 rows and 5,800 for 50,000; the short runs come before these.
    max_time : float or None, default=None
        Seconds of training. Gives up reproducibility.
    tol : float, default=0.0
        A round whose validation score does not rise by more than this counts as stale.
    n_iter_no_change : int or "auto", default="auto"
        Stale rounds (of 100 steps, or 6 % of the steps so far) after which training stops. "auto" is 20; for one
        sample, training goes on until it overfits: until the score falls while that of training rows rises.
    early_stopping : bool, default=True
        Hold out rows, stop when their score stalls and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the rows held out; at least 50 rows, or a fifth of them.
    warm_start : bool, default=False
        Continue from the fitted networks at the next call of `fit`.
    device : str or torch.device, default="auto"
        "auto" takes CUDA, then MPS, then the CPU. May be changed after fit.
    checkpoint : str or path-like or None, default=None
        A file in which `fit` keeps its state, replaced about once a second, so that the same call of `fit` goes on
        there after a crash and gives the same model to the bit (without `max_time`). It is removed at the end of a fit,
        and stays where Ctrl-C ended it. A folder has a file for each fit, named by its data and parameters.
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
    network_ : Module
        The velocity b(t, x), in scaled units.
    denoiser_network_ : Module or None
        The denoiser eta(t, x), where the velocity does not give it.
    interpolant_ : Interpolant
        The path.
    preprocessing_, base_preprocessing_ : AffineMap or MarginalMap
        Data units to scaled units at the target and at the base (None: normal base).
    base_density_ : estimator or None
        The density of the base of a bridge.
    base_sample_ : ndarray or None
        The rows of X0 (of X for a mirror) from which `sample` starts.
    condition_codec_ : object or None
        What encodes the condition.
    n_iter_ : int
        Gradient steps of the run that was kept; with one sample several are compared, and it may be a short one.
    loss_ : float
        Mean training loss of the last round.
    loss_curve_, validation_scores_ : list of float
        One entry a round; scores are held-out log-likelihoods (one sample) or minus the loss (two).
    best_validation_score_ : float
        Score of the weights that were kept; with one sample these may be those of the closed form that training
        starts from, which no round scores.
    sampling_grid_ : tuple of (int, str) or None
        Steps of RK4, and the law of their grid, that carry rows of the base to t = 1 within .015 of 1 + their size in
        scaled units (root mean square of a coordinate); None where `sample` solves no ODE.
    action_curve_ : list of float
        Only of a learned path: E|b|^2 (or |b + epsilon s|^2) while it was learned, in scaled units.
    seed_ : int
        The seed of the fit.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow
    >>> X = np.random.default_rng(0).normal(3.0, 0.5, size=(500, 2))
    >>> flow = InterpolantFlow(max_iter=50, random_state=0).fit(X)
    >>> flow.sample(4).shape
    (4, 2)
    >>> bool(flow.score(X) > -2.0)
    True
    """

    def __init__(
        self,
        interpolant="linear",
        gamma="auto",
        gamma_scale=1.0,
        coupling="independent",
        preprocessing="auto",
        base_density="flow",
        noise_level=0.0,
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
        network="mlp",
        hidden_layer_sizes="auto",
        activation="silu",
        dropout="auto",
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
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
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
