"""Which parameters may be changed after fit: the one list of them."""

# What draws and scores of a fitted interpolant follow, with where they are computed and from which seed.
_CALL_TIME = ("noise_level", "noise_schedule", "n_steps", "solver", "ode_tol", "guidance", "device", "random_state")

# By the name of the estimator, the parameters that its answers follow when they are changed after fit, as their
# docstrings say ("May be changed after fit."). No other parameter changes an answer before the next fit.
AFTER_FIT = {
    "InterpolantFlow": _CALL_TIME,
    "InterpolantClassifier": ("priors", "device"),
    "InterpolantRegressor": ("device", "random_state"),
    "InterpolantDiffusion": (*_CALL_TIME, "likelihood"),
    "MultimarginalFlow": ("ode_tol", "device", "random_state"),
    "SchroedingerBridge": ("n_steps", "ode_tol", "device", "random_state"),
    "TransformedDensity": (),
    "TableCodec": ("unseen", "dequantize", "random_state"),
    "TableSynthesizer": ("device", "random_state"),
    "DensityOutlierDetector": ("contamination",),
    "DensityRatioWeights": (),
    "TableResampler": (),
    "InterpolantImputer": ("average", "keep_empty_features"),
}
