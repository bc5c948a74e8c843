"""The path that a recipe describes, and what circles rule out."""

import dataclasses

from ..interpolants import Interpolant, TorusPath, make_interpolant
from ..preprocessing import TRIANGULAR, WHITENING
from .recipe import Recipe

# What must be as it is by default where columns are circular.
_DEFAULTS = {
    "interpolant": "linear", "gamma": "auto", "coupling": "independent", "network": "mlp", "fields": "auto",
    "conditionals": None,
}  # fmt: skip
# Largest learning rate of long fits with circles, as a share of the one asked for. At the whole rate the log-density
# has waves of .2 nats (3,000 rows of an angle and a speed; KL of a wrapped mixture, 2,000 rows, .046;
# .030 at three tenths of the rate, .032 at a tenth).
_RATE = 0.2
# Steps of a long fit.
_LONG = 1000
# Maps that mix the columns, as an angle cannot be.
_MIXING = (*WHITENING, TRIANGULAR)


def on_circles(recipe: Recipe, circular: tuple[int, ...]) -> Recipe:
    """The recipe of a model with some circular columns."""
    is_long = recipe.max_iter == "auto" or recipe.max_iter >= _LONG
    rate = recipe.learning_rate_init * (_RATE if circular and is_long else 1.0)
    return dataclasses.replace(recipe, circular=circular, learning_rate_init=rate)


def make_path(recipe: Recipe, two_samples: bool) -> Interpolant:
    """The interpolant of a recipe, on circles where columns are."""
    if not recipe.circular:
        return make_interpolant(
            recipe.interpolant, recipe.gamma, recipe.gamma_scale,
            two_samples=two_samples, latent_noise=recipe.learns_denoiser,
        )  # fmt: skip
    check_circles(recipe, two_samples)
    return TorusPath(recipe.circular)


def check_circles(recipe: Recipe, two_samples: bool) -> None:
    """Raise where a recipe asks for what a uniform base on circles does not have."""
    if two_samples or recipe.learns_denoiser:
        what = "two samples" if two_samples else "a diffusion"
        raise ValueError(
            f"support declares circular columns, but this is a fit of {what}, which needs a normal base or a base "
            "sample: use InterpolantFlow().fit(X) with one sample, or give the sine and cosine of the angles as "
            "columns."
        )
    for name, default in _DEFAULTS.items():
        if getattr(recipe, name) != default:
            raise ValueError(
                f"Got {name}={getattr(recipe, name)!r} with circular columns, but they are learned on straight paths "
                f"around the circle with our own network: leave {name}={default!r}."
            )
    if recipe.preprocessing in _MIXING:
        raise ValueError(
            f"Got preprocessing={recipe.preprocessing!r} with circular columns, which cannot be mixed with others: "
            "use 'auto', 'standardize', 'marginal' or None, which concern the other columns."
        )
