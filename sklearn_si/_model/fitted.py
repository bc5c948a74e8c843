"""A fitted model: what a fit leaves, enough to answer every question and nothing of the estimator that asks."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.names import registered
from .._utils.tensors import (
    SAMPLE_STREAM,
    as_array,
    as_tensor,
    blocks,
    cast_module,
    evaluation_dtype,
    make_generator,
    normal,
)
from .._utils.weights import rows_by_weight
from ..couplings import Coupling
from ..exceptions import NoDensityError
from ..interpolants import Interpolant
from ..networks import GuidedField
from ..networks._fields import drop_condition
from ..persistence._pickling import HoldsNetworks
from ..preprocessing import AffineMap
from ..preprocessing._grids import Grid
from ..preprocessing._masked import MaskedMap
from ..preprocessing._support import Support, on_line, support_of, supported
from .base_parts import flow_parts, normal_parts
from .fields import Fields
from .flow_map import FlowMap
from .levels import ASSUMED, Level, LikelihoodCalibration
from .likelihood import Parts, density_parts, middle_parts
from .lost_rows import settled, unknown_where_lost
from .one_pass import DensityMap, check_guidance, moved_rows
from .ratio import Ratio
from .redraws import draw_rows
from .sampling import check_noise, forecast, generate
from .settings import Evaluation, Sampling
from .units import DataUnits, returned

# What to do when rows cannot be drawn, by steps of a grid and by steps that adapt.
_ADVICE = "fit longer, lower noise_level or raise n_steps"
_ADAPTIVE_ADVICE = "raise ode_tol, or use a fixed-step solver"
# Fields of a model that are networks or dicts of them.
_NETWORKS = ("learned", "velocity", "denoiser", "flow_map", "density_map", "plan")
# Rows of one block that is transported, which bounds the memory beside input and output.
_BLOCK_ROWS = 2**16


class Plan(Protocol):
    """A closed-form coupling from which partners are drawn without steps."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Partners of some rows."""


class HasModel:
    """An estimator that holds a fitted model: `isinstance` tells it from the density estimators of others."""

    model_: "FittedModel"


@registered("FittedModel")
@dataclasses.dataclass(frozen=True, eq=False)
class FittedModel(HoldsNetworks):
    """What a fit leaves.

    Immutable: what may change after a fit comes with each question, as `Sampling` and `Evaluation`.

    Parameters
    ----------
    interpolant : Interpolant
        The path.
    learned : dict of Module
        The networks, by the name of the field that each has learned.
    velocity, denoiser : Module
        The fields that follow from these; the denoiser is None where the velocity gives it, or where nothing does.
    base_map, target_map : AffineMap, MarginalMap or SupportedMap
        Data units to scaled units at both ends; the former is None for a normal base.
    base_sample : ndarray of shape (n_samples_0, n_features) or None
        The rows from which `sample` starts, in data units; None for a normal base.
    base_density : estimator or None
        The density of the base of a bridge, on the line where the columns have a support.
    condition_codec : ConditionCodec or None
        What encodes a condition.
    coupling : Coupling
        How the rows of training were paired.
    dtype : dtype
        Of the rows that are drawn.
    seed : int
        Of the fit.
    sampling_grid : tuple of (int, str) or None
        Steps of RK4 and the spacing of their grid that are enough for the ODE; None where none is solved from a base.
    likelihood_calibration : LikelihoodCalibration or None
        How finely log-densities are solved, as measured after the fit; None where nothing was measured.
    activation : str
        Of the hidden layers.
    forecast_noise : float or None
        The diffusion of a model that starts from given rows.
    plan : Plan or None
        What draws rows in place of a solver.
    flow_map : FlowMap or None
        The distilled map, and
    density_map : DensityMap or None
        the distilled map back with its log-density, and
    distilled_guidance : float
        the weight of the condition that they were distilled with.
    is_rectified : bool
        Whether the velocity is that of straight paths between the flow's own pairs.
    base_grid, target_grid : Grid or None
        The repeated values of either end to which noise was added within their cells; the rows of the model have that
        noise, and the rows that it returns do not.
    base_weight : ndarray of shape (n_samples_0,) or None
        The weights by which rows of `base_sample` are drawn; None where all weigh the same.
    ratio : Ratio or None
        The ratio of the densities of target and base, as learned from the rows of both; None where it is integrated.
    masked_map : MaskedMap or None
        The map of a model that answers for any columns given any others, whose `learned` field is "masked".
    """

    interpolant: Interpolant
    learned: dict[str, nn.Module]
    velocity: Any
    denoiser: Any
    base_map: Any
    target_map: Any
    base_sample: np.ndarray | None = None
    base_density: Any = None
    condition_codec: Any = None
    coupling: Coupling = dataclasses.field(default_factory=Coupling)
    dtype: Any = np.float64
    seed: int = 0
    sampling_grid: tuple[int, str] | None = None
    likelihood_calibration: LikelihoodCalibration | None = None
    activation: str = "silu"
    forecast_noise: float | None = None
    plan: Any = None
    flow_map: FlowMap | None = None
    density_map: DensityMap | None = None
    distilled_guidance: float = 1.0
    is_rectified: bool = False
    base_grid: Grid | None = None
    target_grid: Grid | None = None
    base_weight: np.ndarray | None = None
    ratio: Ratio | None = None
    masked_map: MaskedMap | None = None
    target_model: ClassVar[Any] = None  # what bridges may have: `ModelWithTarget`

    @property
    def members(self) -> "tuple[FittedModel, ...]":
        """The models whose mixture it is: itself."""
        return (self,)

    # -- its networks, for files and pickles

    def networks(self) -> dict[str, Any]:
        """The networks by the name of their field."""
        return {name: getattr(self, name) for name in _NETWORKS if getattr(self, name) is not None}

    def with_networks(self, networks: dict[str, Any]) -> "FittedModel":
        """The same model with other networks of these names."""
        return dataclasses.replace(self, **networks)

    # -- what the model knows

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.target_map.n_features

    @property
    def support(self) -> Support | None:
        """Where the columns live; None where all are real."""
        return support_of(self.target_map)

    def within(self, support: Support | None) -> "FittedModel":
        """A model of rows on the line as that of rows in a support."""
        if support is None:
            return self
        rows = self.base_sample
        return dataclasses.replace(
            self,
            base_map=supported(support, self.base_map),
            target_map=supported(support, self.target_map),
            base_sample=None if rows is None else returned(support.inverse_transform(rows), rows.dtype, support),
        )

    @property
    def units(self) -> DataUnits:
        """The maps between data units and scaled units."""
        return DataUnits(self.interpolant, self.base_map, self.target_map)

    @property
    def is_mirror(self) -> bool:
        """Whether the path leads from a distribution to itself."""
        return self.interpolant.path_type == "mirror"

    @property
    def is_forecast(self) -> bool:
        """Whether the process starts from given rows, and so has neither a base distribution nor a density."""
        return self.forecast_noise is not None

    @property
    def has_score(self) -> bool:
        """Whether the score function is known: from the velocity, or from a denoiser of its own."""
        return self.interpolant.path_type == "one-sided" or self.denoiser is not None

    @property
    def base_model(self) -> "FittedModel | None":
        """The model of the density of the base, where it is a flow whose scaled units are affine; else None."""
        base = self.base_density
        is_flow = isinstance(base, HasModel) and isinstance(base.model_.target_map, AffineMap)
        return base.model_ if is_flow and len(base.model_.members) == 1 else None

    @property
    def has_gradient(self) -> bool:
        """Whether the log-density of the base can be differentiated: normal, a flow, or not needed."""
        known = self.interpolant.gaussian_time is not None or self.base_sample is None
        return known or self.base_model is not None

    def grid_at(self, time: float) -> Grid | None:
        """The repeated values of the rows at a time: those of the ends have some."""
        return self.target_grid if time == 1 else self.base_grid if time == 0 else None

    def transport_grids(self, forward: bool) -> tuple[Grid | None, Grid | None]:
        """The repeated values of rows that `transport` is given, and of those that it returns."""
        if self.is_mirror:
            return None, None
        ends = self.base_grid, self.target_grid
        return ends if forward == (self.base_map is not None) else ends[::-1]

    def refuse_forecast(self, what: str) -> None:
        """Raise where the model starts from given rows."""
        if self.is_forecast:
            raise NoDensityError(
                f"{what} has no meaning with start='condition': the process starts from a given row, has noise, and "
                "knows no distribution of the start rows. Use sample(n, condition=row)."
            )

    def require_score(self, what: str) -> None:
        """Raise where the score function is not known."""
        self.refuse_forecast(what)
        if not self.has_score:
            why = "after a fit of two samples: use InterpolantDiffusion, or fields='b+eta' with a gamma"
            if self.interpolant.circular:
                why = "with a base that is uniform on circles: give the sine and cosine of the angles as columns"
            raise ValueError(f"{what} needs the score function, which the velocity alone does not give {why}.")

    def require_density(self) -> None:
        """Raise where no density is known at either end."""
        self.refuse_forecast("a log-density")
        if self.is_mirror:
            raise NoDensityError("interpolant='mirror' knows no density at either end: use 'linear'.")

    def check_sampling(self, sampling: Sampling) -> None:
        """Raise where the fields cannot serve a noise level or a schedule."""
        if self.is_forecast:
            return  # the drift gives the score function given the start row
        check_noise(sampling, self.interpolant, self.denoiser is not None, self.is_rectified)

    # -- fields

    def fields(
        self, array_dtype: Any, device: torch.device, condition: Any = None, n_rows: int = 1, guidance: float = 1.0
    ) -> Fields:
        """The fields in the dtype of some rows, in scaled units, with their encoded condition."""
        dtype = evaluation_dtype(np.dtype(array_dtype), device)
        if guidance != 1 and (self.condition_codec is None or not self.condition_codec.droppable):
            raise ValueError(
                f"Got guidance={guidance:g}, but the model was not fitted with dropped conditions: fit with "
                "condition= and condition_dropout > 0, or leave guidance=1."
            )
        velocity = _guided(cast_module(self.velocity, dtype, device), guidance)
        known = self.denoiser is not None
        denoiser = _guided(cast_module(self.denoiser, dtype, device), guidance) if known else None
        return Fields(self.interpolant, velocity, denoiser, self.encoded(condition, n_rows, dtype, device))

    def encoded(self, condition: Any, n_rows: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """The encoded condition, a row for each; None for a model without one."""
        codec = self.condition_codec
        if codec is None:
            if condition is not None:
                raise ValueError("Got a condition, but the model was fitted without one: call fit(..., condition=).")
            return None
        if condition is None:
            if not codec.droppable:
                raise ValueError(
                    "The model was fitted with a condition: pass condition=, or fit with condition_dropout > 0, "
                    "which learns the distribution without one as well. In a search, cross-validation or Pipeline, "
                    "metadata routing passes it to fit and score: sklearn.set_config(enable_metadata_routing=True)."
                )
            return drop_condition(torch.zeros((n_rows, codec.n_outputs_), dtype=dtype, device=device))
        return as_tensor(codec.transform(condition, n_rows), dtype, device)

    @torch.no_grad()
    def field(
        self,
        X: np.ndarray,
        time: Tensor,
        evaluate: Callable[[Fields, Tensor, Tensor], Tensor],
        to_data: Callable[[DataUnits, np.ndarray, Tensor, np.ndarray], np.ndarray],
        evaluation: Evaluation,
        condition: Any = None,
    ) -> np.ndarray:
        """One field at one time: scaled, evaluated, brought back to data units."""
        self.refuse_forecast("A field of its own")
        dtype = evaluation_dtype(X.dtype, evaluation.device)
        fields = self.fields(X.dtype, evaluation.device, condition, len(X), evaluation.guidance)
        x = as_tensor(self.units.to_scaled(X, time), dtype, evaluation.device)
        value = settled(as_array(evaluate(fields, time.to(x), x), np.float64), "computing a field", evaluation.strict)
        return to_data(self.units, value, time, X).astype(X.dtype, copy=False)

    # -- rows

    def base_rows(self, n: int, generator: torch.Generator, dtype: Any) -> Tensor:
        """Rows at t = 0 in scaled units: normal, or drawn with replacement from the stored sample."""
        device = generator.device
        torch_dtype = evaluation_dtype(np.dtype(dtype), device)
        if self.base_sample is None:
            # of one precision whatever that of the solver is, so that all solvers start from the same rows
            z = normal((n, self.n_features), generator, dtype=torch.float32, device=device).to(torch_dtype)
            return self.interpolant.base_from_normal(z)
        if self.base_weight is None:
            rows = torch.randint(len(self.base_sample), (n,), generator=generator, device=device)
        else:
            rows = rows_by_weight(as_tensor(self.base_weight, torch.float64, device), n, generator)
        base_map = self.base_map or self.target_map  # a mirror has one map for both ends
        return as_tensor(base_map.transform(self.base_sample[rows.cpu().numpy()]), torch_dtype, device)

    def sample(
        self, n: int, sampling: Sampling, generator: torch.Generator, condition: Any = None, guidance: float = 1.0
    ) -> np.ndarray:
        """Rows of the target, in data units."""
        # the error of the measured steps, and that of 1000 steps of an SDE, is far above that of single precision
        measured = sampling.follows_measured and self.sampling_grid is not None
        dtype = np.float32 if measured or sampling.noise_level > 0 or sampling.solver == "distilled" else self.dtype
        fields = self.fields(dtype, generator.device, condition, n, guidance)
        flow_map = self._distilled(guidance) if sampling.solver == "distilled" else None

        def start(rows: np.ndarray) -> Tensor:
            return self.base_rows(len(rows), generator, dtype)

        return self._drawn(fields, start, n, sampling, flow_map, generator, fields.condition)

    def from_base(self, Z: np.ndarray, device: torch.device, condition: Any = None) -> np.ndarray:
        """Rows of the target, in data units, from given rows of a normal base: by the steps that `sample` takes."""
        x = as_tensor(Z, evaluation_dtype(Z.dtype, device), device)
        fields = self.fields(Z.dtype, device, condition, len(Z))
        # the ODE of the default draws no noise
        generator = make_generator(self.seed, SAMPLE_STREAM, device)
        return self._drawn(fields, lambda rows: x[rows], len(Z), Sampling(), None, generator, fields.condition)

    def resample(
        self, X: np.ndarray, sampling: Sampling, generator: torch.Generator, condition: Any, guidance: float
    ) -> np.ndarray:
        """Fresh rows from rows of a mirror model's own distribution."""
        fields = self.fields(X.dtype, generator.device, condition, len(X), guidance)
        dtype = evaluation_dtype(X.dtype, generator.device)
        x = as_tensor(self.target_map.transform(X), dtype, generator.device)
        moved = self._drawn(fields, lambda rows: x[rows], len(X), sampling, None, generator, x)
        return returned(moved, X.dtype, self.support, self.target_grid)

    def _drawn(
        self,
        fields: Fields,
        start: Callable[[np.ndarray], Tensor],
        n: int,
        sampling: Sampling,
        flow_map: FlowMap | None,
        generator: torch.Generator,
        given: Tensor | None,
    ) -> np.ndarray:
        """N rows at t = 1, in data units: chunk by chunk from start(numbers)."""

        def draw(rows: np.ndarray) -> np.ndarray:
            x = start(rows)
            if self.plan is None:
                x = generate(fields.rows(torch.as_tensor(rows)), x, sampling, self.sampling_grid, flow_map, generator)
            else:
                plan: Any = cast_module(self.plan, x.dtype, x.device)
                x = plan.draw(x, generator)
            X = self.target_map.inverse_transform(as_array(x, np.float64))
            return returned(X, self.dtype, self.support, self.target_grid)

        chunk = None if self.plan is None else n
        advice = _ADAPTIVE_ADVICE if sampling.solver == "dopri5-adaptive" else _ADVICE
        return draw_rows(draw, (n, self.n_features), self.dtype, given=given, chunk=chunk, advice=advice)

    def _distilled(self, guidance: float) -> FlowMap:
        """The distilled flow map, or an error that says how to get one."""
        if self.flow_map is None:
            raise ValueError("solver='distilled' needs a distilled flow map: call distill() after fit.")
        check_guidance(self.distilled_guidance, guidance)
        return self.flow_map

    def one_pass(self, evaluation: Evaluation) -> DensityMap | None:
        """The distilled map that serves densities and transported rows; None where the ODE does."""
        if not evaluation.one_pass or self.density_map is None:
            return None
        check_guidance(self.distilled_guidance, evaluation.guidance)
        return self.density_map

    def forecast(self, X0: np.ndarray, n: int, sampling: Sampling, generator: torch.Generator) -> np.ndarray:
        """Continuations of start rows, one for all or one for each, in data units."""
        assert self.forecast_noise is not None  # the estimator has asked
        dtype = evaluation_dtype(np.dtype(self.dtype), generator.device)
        x0 = as_tensor(self.base_map.transform(X0), dtype, generator.device).expand(n, -1)
        fields = self.fields(self.dtype, generator.device)
        fields.condition = x0
        a, n_steps = self.forecast_noise, sampling.even_steps

        def draw(rows: np.ndarray) -> np.ndarray:
            numbers = torch.as_tensor(rows)
            x = forecast(fields.rows(numbers), x0[numbers], a, sampling, n_steps, generator)
            X = self.target_map.inverse_transform(as_array(x, np.float64))
            return returned(X, self.dtype, self.support, self.target_grid)

        return draw_rows(draw, tuple(x0.shape), self.dtype, given=x0, chunk=n, advice=_ADVICE)

    @torch.no_grad()
    def transport(
        self, X: np.ndarray, forward: bool, evaluation: Evaluation, condition: Any = None
    ) -> tuple[np.ndarray, Tensor]:
        """Rows of the first argument of fit at the other end (or back), along the ODE, with their stated errors.

        One sample: data to the standard normal. Two samples: base to target.
        """
        if self.is_mirror:
            return X.copy(), torch.zeros(len(X))  # its ODE starts and ends at the same point
        ends = [(self.base_map, 0.0), (self.target_map, 1.0)]
        grid = self.transport_grids(forward)[1]
        (map_in, start), (map_out, stop) = ends if forward == (self.base_map is not None) else ends[::-1]
        device = evaluation.device
        dtype = evaluation_dtype(X.dtype, device)
        fields = self.fields(X.dtype, device, condition, len(X), evaluation.guidance)
        density_map = self.one_pass(evaluation)
        maps = None if density_map is None else (density_map, self.flow_map)
        moved, errors = np.empty(X.shape, X.dtype), []
        for rows in blocks(len(X), _BLOCK_ROWS):
            x = as_tensor(X[rows] if map_in is None else map_in.transform(X[rows]), dtype, device)
            own, span, node = fields.rows(rows), (start, stop), self.interpolant.gaussian_time
            x, error = moved_rows(own, x, span, node, evaluation.tolerance, maps)
            end = as_array(self.interpolant.wrapped(x), np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # a heavy tail may lead beyond the largest number
                if map_out is not None:
                    end = returned(map_out.inverse_transform(end), X.dtype, self.support, grid)
                moved[rows] = end
            errors.append(error)
        moved = settled(moved, "following the ODE", evaluation.strict)
        return moved, unknown_where_lost(torch.cat(errors), moved)

    # -- where the density is known

    def anchor(self) -> tuple[float, Parts]:
        """The time at which the density is known, and its terms there as a function of tensors in scaled units."""
        middle = self.interpolant.gaussian_time
        if middle is None:
            return 0.0, self.base_parts()
        return middle, middle_parts(self.interpolant, middle)

    def density_parts(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
        """Terms of the log-density of rows in scaled units, at a level, and their error."""
        fields = self.fields(np.float32 if x.dtype == torch.float32 else np.float64, x.device)
        calibration = self.likelihood_calibration or ASSUMED
        return density_parts(fields, x, 1.0, level, calibration.spacing, *self.anchor(), calibration)

    def base_parts(self) -> Parts:
        """Terms of the log-density of the base and their error, as a function of tensors in scaled units."""
        if self.base_sample is None:
            return normal_parts(self.interpolant)
        if self.base_density is None and self.interpolant.gaussian_time is not None:
            raise NoDensityError(
                "An encoding-decoding model takes its densities from the middle and fits none to its base, which the "
                "SDE chain would need: use likelihood='ode', or interpolant='linear'."
            )
        if self.base_density is None:
            raise NoDensityError(
                "The density of the base is unknown (base_density=None, or a target_density of its own): fit with "
                "base_density='flow', 'normal' or a density estimator such as GaussianMixture."
            )
        if self.base_model is not None:
            return flow_parts(self.base_model, on_line(self.base_map))
        base, base_map = self.base_density, on_line(self.base_map)

        def parts(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            X = base_map.inverse_transform(as_array(x, np.float64))
            value = as_tensor(base.score_samples(X) - base_map.log_abs_det_jacobian(X), x.dtype, x.device)
            return value[:, None], torch.zeros_like(value)

        return parts


def _guided(network: Any, guidance: float) -> Any:
    return network if guidance == 1 else GuidedField(network, guidance)
