"""The training of one model for all conditionals: batches under masks, and their log-likelihood."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._model.fields import Fields
from .._model.likelihood import COARSE, GRID_SPACING, density_parts, middle_parts, standard_normal_parts
from .._utils.tensors import FIT_STREAM, make_generator
from .._utils.weights import effective_rows
from ..networks._fields import StraightScales
from ..networks._masked import MaskedVelocity, ToldNetwork
from ..preprocessing import AffineMap
from ..preprocessing._masked import MaskedMap, told, told_of_whole_rows, whitened
from ..preprocessing._patterns import ABSENT, ASKED, GIVEN, covariance_of, shrunk
from ..preprocessing._support import supported
from .batches import Sampler
from .losses import REGRESSIONS
from .run import Run
from .weighting import first_rows, mean_by_weight, spread_rows

# Patterns that are drawn afresh for each block of batches.
_PATTERNS = 32
# Of eight patterns, so many ask for all columns, for some columns given nothing, for all others given some, and the
# rest for some given some.
_JOINT, _MARGINAL, _COMPLEMENT = 2, 1, 4
_KINDS = 8
# Patterns under which held-out rows are scored, beside the joint density of all columns.
_VALIDATION_PATTERNS = 4


def draw_states(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Patterns of states, of shape (n, d): what is given and what is asked for in any number of columns."""
    device = generator.device

    def count(most: Tensor | int) -> Tensor:
        return 1 + (torch.rand(n, generator=generator, device=device) * most).long().clamp(max=most - 1)

    rank = torch.rand((n, d), generator=generator, device=device).argsort(1).argsort(1)
    kind = torch.arange(n, device=device) % _KINDS
    is_joint, is_marginal = kind < _JOINT, (kind >= _JOINT) & (kind < _JOINT + _MARGINAL)
    n_given = torch.where(is_joint | is_marginal, 0, count(d - 1))
    left = d - n_given
    n_asked = torch.where(is_joint | (kind - _JOINT - _MARGINAL < _COMPLEMENT) & ~is_marginal, left, count(left))
    states = torch.full((n, d), ABSENT, device=device)
    states[rank < n_given[:, None]] = GIVEN
    states[(rank >= n_given[:, None]) & (rank < (n_given + n_asked)[:, None])] = ASKED
    return states


class MaskedSampler(Sampler):
    """Draws batches of which some columns are given and others asked for.

    Parameters
    ----------
    column_map : MaskedMap
    *args
        As in `Sampler`.
    """

    # what is told is an input of the first layer: rows may share a time
    shares_times = True

    def __init__(self, column_map: MaskedMap, *args: Any) -> None:
        super().__init__(*args)
        self.column_map = column_map

    def draw(
        self, batch: int, generator: torch.Generator, batches: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Some batches: rows x0 and u, zero in columns that are not asked for, with what is told of them."""
        x0, v, _, condition = super().draw(batch, generator, batches)
        n, d = v.shape
        states = draw_states(_PATTERNS, d, generator)
        # row i has pattern i modulo their number, so that each batch has all of them
        by_pattern = torch.nn.functional.pad(v, (0, 0, 0, -n % _PATTERNS)).unflatten(0, (-1, _PATTERNS)).transpose(0, 1)
        u = whitened(by_pattern, self.column_map.normals(states), states).transpose(0, 1).flatten(0, 1)[:n]
        of_rows = states.repeat(-(-n // _PATTERNS), 1)[:n]
        parts = [told(v, of_rows), *([] if condition is None else [condition])]
        return torch.where(of_rows == ASKED, x0, 0.0), u, None, torch.cat(parts, 1)


class MaskedRun(Run):
    """One training run of a model for all conditionals."""

    def _fit_maps(self, kind):
        _, columns = super()._fit_maps(kind)
        problem = self.problem
        rows, weight = spread_rows(problem.target, problem.target_train, problem.target_weight)
        v = columns.transform(problem.group.rows(rows))
        ends = np.stack([v.min(axis=0), v.max(axis=0)])
        if weight is None:
            return None, MaskedMap(columns, covariance_of(v), ends)
        moments = (v * (weight / weight.sum())[:, None]).T @ v
        return None, MaskedMap(columns, shrunk(moments, effective_rows(len(v), weight)), ends)

    @property
    def has_data_units(self):
        """Whether the map is affine, so that fields have data units."""
        return isinstance(self.target_map.columns, AffineMap)

    def _build_networks(self):
        recipe, problem, d = self.recipe, self.problem, self.x1.shape[1]
        generator = make_generator(problem.seed, FIT_STREAM + 100 * list(REGRESSIONS).index("masked"))
        n_told = len(told_of_whole_rows(d)) + (0 if problem.codec is None else problem.codec.n_outputs_)
        path = problem.interpolant if problem.interpolant.is_linear else StraightScales(problem.interpolant)
        network = ToldNetwork(d, n_told, self.widths, recipe.activation, generator)
        return {"masked": MaskedVelocity(path, network)}

    def make_sampler(self, *args):
        """The source of batches."""
        return MaskedSampler(self.target_map, *args)

    def log_jacobian(self, rows):
        """The log-derivatives of all columns at some rows of X."""
        return self.target_map.log_slopes(self.problem.target[rows])

    def joint_rows(self, rows):
        """Rows of which everything is asked for, in the units of the joint model."""
        states = torch.full((1, self.x1.shape[1]), ASKED, device=self.device)
        return whitened(self.x1[rows].double()[None], self.target_map.normals(states), states)[0]

    def likelihood_of(self, rows, most=None):
        """A function that gives the mean log-density per column times their number, in data units, under fixed masks.

        Every second row is scored whole, and the others under one of some masks.
        """
        weight, group = self.problem.target_weight, self.problem.group
        rows = first_rows(weight, rows, self.n_validation_rows(most))
        pieces = [(self._piece(mask, rows[own]), rows[own]) for mask, own in self._parts(len(rows))]

        def likelihood():
            sums = (len(some) * mean_by_weight(values(), weight, some) for values, some in pieces)
            return sum(sums) / len(rows)

        return group.averaged(likelihood)

    def row_likelihoods(self, rows):
        """A function that gives the same for each of some rows."""
        parts = self._parts(len(rows))
        pieces = [self._piece(mask, rows[own]) for mask, own in parts]
        order = torch.as_tensor(np.argsort(np.concatenate([own for _, own in parts])))
        return lambda: torch.cat([values() for values in pieces])[order]

    def _parts(self, n):
        """Masks, and the positions among n rows of those that are scored under each."""
        d, order = self.x1.shape[1], np.arange(n)
        masks = draw_states(_KINDS * _VALIDATION_PATTERNS, d, make_generator(self.problem.seed, FIT_STREAM + 500))
        # whole rows apart, and of the other kinds as many as in training
        masks = masks[torch.arange(len(masks)) % _KINDS >= _JOINT][:_VALIDATION_PATTERNS]
        parts = [(torch.full((d,), ASKED), order[::2])]
        parts += [(mask, order[1::2][k :: len(masks)]) for k, mask in enumerate(masks)]
        return [(mask, some) for mask, some in parts if len(some)]

    def _piece(self, mask, rows):
        """A function that gives log-densities of some rows under one mask, per column times their number."""
        path, asked = self.problem.interpolant, (mask == ASKED).nonzero()[:, 0]
        v, states = self.x1[rows], mask[None].to(self.device)
        normals = self.target_map.normals(states)
        u = whitened(v[None], normals, states)[0][:, asked]
        own = None if self.condition is None else self.condition[rows]
        is_whole = len(asked) == len(mask)
        known = [] if is_whole else [told(v, states)]
        known += [] if own is None else [own]
        condition = torch.cat(known, 1) if known else None
        slopes = torch.as_tensor(self.log_jacobian(rows)[:, asked.numpy()].sum(1) - float(normals.log_det[0]))
        middle = path.gaussian_time
        anchor, parts = (0.0, standard_normal_parts) if middle is None else (middle, middle_parts(path, middle))

        share = len(mask) / len(asked)

        @torch.no_grad()
        def values():
            of: Any = self.networks["masked"]
            field = of.joint(told_of_whole_rows(len(mask))) if is_whole else of.restricted(asked.to(self.device))
            fields = Fields(path, field, condition=condition)
            value = density_parts(fields, u, 1.0, COARSE, GRID_SPACING, anchor, parts, None)[0].sum(1)
            return share * (value.double().cpu() + slopes)

        return values

    def fitted(self, history, density):
        """The fitted model of all columns, which holds what answers for some given others."""
        model, record = super().fitted(history, density)
        columns, support = self.target_map, self.problem.support
        joint = supported(support, columns.joint())
        return dataclasses.replace(model, target_map=joint, masked_map=columns.within(support)), record


def make_run(recipe, problem, kind, mixture=None, **kwargs):
    """A run of the kind that the recipe asks for; the parameters are those of `Run`."""
    return (Run if recipe.conditionals is None else MaskedRun)(recipe, problem, kind, mixture, **kwargs)


def check_conditionals(recipe, base, target, interpolant):
    """Raise a ValueError for what a model of any columns given any others cannot have."""
    if base is not None:
        raise ValueError(
            "conditionals='any' learns the columns of one sample given each other, but fit was given two samples: call "
            "fit(X), or leave conditionals=None."
        )
    if target.shape[1] < 2:
        raise ValueError("conditionals='any' needs two columns or more, but X has one (n_features = 1).")
    if interpolant.path_type != "one-sided":
        raise ValueError(
            f"conditionals='any' needs a path from a normal distribution, but interpolant={recipe.interpolant!r} has "
            "none: use 'linear'."
        )
    if recipe.preprocessing not in ("auto", "standardize", "marginal"):
        raise ValueError(
            f"Got preprocessing={recipe.preprocessing!r} with conditionals='any', under which a column must not be "
            "mixed with others that may be unknown, and has to be scaled: use 'auto', 'standardize' or 'marginal', "
            "which map each column by itself."
        )
    if recipe.network != "mlp":
        raise ValueError(
            "conditionals='any' restricts its network to the columns of each question, which it cannot do with that of "
            "a factory: use network='mlp' with hidden_layer_sizes and activation."
        )
