"""Arrays to tensors and back; devices; generators that leave the global ones alone."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from sklearn.utils import check_random_state
from torch import Tensor, nn

# Streams of random numbers drawn from one seed: the rows that `sample` returns
# must not be functions of the numbers that `fit` saw.
FIT_STREAM, SAMPLE_STREAM, BASE_STREAM, PATH_STREAM, GRID_STREAM, DISTIL_STREAM, RECTIFY_STREAM = range(7)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", a name or a `torch.device` into a `torch.device` that exists here."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"Got device={device!r}, but expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """One integer seed from an int, a RandomState or None (numpy's global state, as scikit-learn)."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def make_generator(seed: int, stream: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A `torch.Generator` for one stream of a seed; distinct streams are independent."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    # 63 bits: manual_seed refuses the upper half of uint64 on some devices.
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def evaluation_dtype(array_dtype: DTypeLike, device: torch.device) -> torch.dtype:
    """The torch dtype in which rows of this numpy dtype are evaluated on this device."""
    if array_dtype == np.float32 or device.type == "mps":
        return torch.float32
    return torch.float64


def as_tensor(array: ArrayLike, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Copy an array to a tensor: read-only and negative-stride arrays are welcome."""
    return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=device)


def as_array(tensor: Tensor, dtype: DTypeLike) -> np.ndarray:
    """A tensor as a numpy array of the given dtype."""
    return tensor.detach().cpu().numpy().astype(dtype, copy=False)


def cast_module(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The module itself if it already has this dtype and device, else a converted copy.

    A copy, never an in-place conversion: threads may share a fitted estimator.
    """
    parameter = next(iter(module.state_dict().values()), None)
    if parameter is None or (parameter.dtype == dtype and parameter.device.type == device.type):
        return module
    return copy.deepcopy(module).to(dtype=dtype, device=device)


def blocks(n: int, size: int) -> list[slice]:
    """Slices of at most `size` rows that make up n."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def column(t: Tensor, x: Tensor) -> Tensor:
    """Time as a column that broadcasts against rows: shape () stays, (n,) becomes (n, 1)."""
    return t if t.ndim == 0 else t.reshape(-1, *([1] * (x.ndim - 1)))


def normal(
    shape: Sequence[int],
    generator: torch.Generator,
    like: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Standard normal numbers from a generator, in the dtype and on the device of `like`."""
    dtype = like.dtype if like is not None else dtype
    device = like.device if like is not None else device
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)
