"""How a model is learned: the parameters of training, and what is split, built and trained in which order."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .validation_split import Split, split_rows


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is learned.

    The parameters are those of the estimators, under the same names; training sees this value and no estimator.

    Parameters
    ----------
    learns_denoiser : bool, default=False
        Whether a denoiser is learned beside the velocity where the latter does not give it.
    forecasts : bool, default=False
        Whether the process starts from given rows.
    affine_only : bool, default=False
        Whether preprocessing="auto" of one sample leaves maps of the columns out.
    split : callable, default=split_rows
        split(n, fraction, rng) -> numbers of training and validation rows of the target.
    build_networks : callable, default=None
        build_networks(run) -> the networks by the name of the field; None builds those of the parameters.
    train : callable, default=None
        train(run, settings) trains the one run of a fit that compares none; None trains it once.
    base_flow : callable, default=None
        base_flow(max_time) -> the estimator of the density of the base with base_density="flow".
    circular : tuple of int, default=()
        Positions of the columns that are angles.
    """

    interpolant: Any = "linear"
    gamma: Any = "auto"
    gamma_scale: float = 1.0
    coupling: Any = "independent"
    preprocessing: str | None = "auto"
    base_density: Any = None
    target_density: str = "transport"
    fields: str = "auto"
    guidance: float = 1.0
    condition_dropout: float = 0.0
    condition_kinds: dict | None = None
    conditionals: str | None = None
    time_distribution: str = "auto"
    network: Any = "mlp"
    hidden_layer_sizes: Any = "auto"
    activation: str = "silu"
    dropout: Any = "auto"
    n_estimators: int = 1
    bf16: Any = "auto"
    batch_size: Any = "auto"
    learning_rate_init: float = 0.01
    max_iter: Any = "auto"
    max_time: float | None = None
    tol: float = 0.0
    n_iter_no_change: Any = "auto"
    early_stopping: bool = True
    validation_fraction: float = 0.1
    device: str | torch.device = "auto"
    verbose: int = 0
    learns_denoiser: bool = False
    forecasts: bool = False
    affine_only: bool = False
    split: Callable[[int, float | None, np.random.Generator], Split] = split_rows
    build_networks: Callable[[Any], dict] | None = None
    train: Callable[[Any, Any], None] | None = None
    base_flow: Callable[[float | None], Any] | None = None
    circular: tuple[int, ...] = ()


def layer_widths(sizes, n_features):
    """Widths of the hidden layers; "auto": three layers while tangents are cheap, then two wide ones."""
    if isinstance(sizes, str):
        if n_features <= 3:
            return (64, 64, 64)
        return (128, 128, 128) if n_features <= 24 else (256, 256)
    widths = tuple(itertools.chain(np.atleast_1d(sizes).tolist()))
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"Got hidden_layer_sizes={sizes!r}, but expected one or more integers of at least 1.")
    return widths
