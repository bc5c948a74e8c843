"""Conversions between arrays and tensors, devices, and random generators that leave the global ones alone."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from sklearn.utils import check_random_state
from torch import Tensor, nn

# The streams of random numbers that are drawn from one seed. The rows that `sample` returns must not be functions of
# the numbers that `fit` used.
FIT_STREAM = 0
SAMPLE_STREAM = 1
BASE_STREAM = 2
PATH_STREAM = 3
GRID_STREAM = 4
DISTILL_STREAM = 5
RECTIFY_STREAM = 6
REPEATS_STREAM = 7
CALIBRATION_STREAM = 8
RATIO_STREAM = 9
MEMBER_STREAM = 10


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", a name or a `torch.device` into a `torch.device` that exists here.

    Raises
    ------
    ValueError
        When there is no such device; the message lists the devices of this machine.
    """
    if device == "auto":
        return torch.device(_accelerators()[0] if _accelerators() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"Got device={device!r}, but expected 'auto', or a name such as 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    if not _is_present(found):
        raise ValueError(
            f"Got device={str(device)!r}, but this machine has {['cpu', *_accelerators()]} (as torch "
            f"{torch.__version__} sees it): choose one of them, or device='auto', which takes an accelerator where "
            "there is one (set_params(device='auto') does so for a fitted model)."
        )
    return found


def _accelerators() -> list[str]:
    """Names of the devices other than the CPU; "auto" takes the first."""
    if torch.cuda.is_available():
        return ["cuda", *(f"cuda:{k}" for k in range(1, torch.cuda.device_count()))]
    return ["mps"] if torch.backends.mps.is_available() else []


def _is_present(device: torch.device) -> bool:
    """Whether tensors can be put on a device."""
    if device.type in ("cpu", "meta"):
        return device.type == "cpu"  # "meta" holds no numbers
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError):  # torch says it in either way
        return False
    return True


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """An integer seed from an int, a RandomState or None (the global state of numpy, as in scikit-learn)."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def make_generator(seed: int, stream: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A `torch.Generator` for one stream of a seed; different streams are independent."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    # The seed has 63 bits, because manual_seed rejects the upper half of uint64 on some devices.
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def evaluation_dtype(array_dtype: DTypeLike, device: torch.device) -> torch.dtype:
    """The torch dtype in which rows of this numpy dtype are evaluated on this device."""
    if array_dtype == np.float32 or device.type == "mps":
        return torch.float32
    return torch.float64


def as_tensor(array: ArrayLike, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Copy an array to a tensor; it may be read-only or have negative strides."""
    return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=device)


def as_array(tensor: Tensor, dtype: DTypeLike) -> np.ndarray:
    """A tensor as a numpy array of the given dtype."""
    return tensor.detach().cpu().numpy().astype(dtype, copy=False)


def cast_module(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The module itself if it has this dtype and device already, otherwise a converted copy.

    A copy, never an in-place conversion: threads may share a fitted estimator.
    """
    parameter = next(iter(module.state_dict().values()), None)
    if parameter is None or (parameter.dtype == dtype and parameter.device.type == device.type):
        return module
    return copy.deepcopy(module).to(dtype=dtype, device=device)


def blocks(n: int, size: int) -> list[slice]:
    """Slices of at most `size` rows that together cover n rows."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def column(t: Tensor, x: Tensor) -> Tensor:
    """The time as a column that broadcasts against rows: shape () stays, and (n,) becomes (n, 1)."""
    return t if t.ndim == 0 else t.reshape(-1, *([1] * (x.ndim - 1)))


def normal(
    shape: Sequence[int],
    generator: torch.Generator,
    like: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Standard normal numbers from the generator, with the dtype and device of `like`."""
    dtype = like.dtype if like is not None else dtype
    device = like.device if like is not None else device
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)
