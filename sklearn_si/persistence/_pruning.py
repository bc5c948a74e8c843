"""Folders of kept fits: removing those that were not asked for the longest."""

import numbers
import os
import pathlib
import re

# A fit in a folder of the parameter `memory`, and what a write that was cut off has left beside it.
_KEPT = re.compile(r"[0-9a-f]{32}\.si(?P<cut_off>\.[0-9a-f]{16})?")


def prune(folder, max_bytes):
    """Remove kept fits from a folder of `memory` until it holds no more than so many bytes.

    Those that were not loaded for the longest time go first, and with them what writes that were cut off have left.

    Parameters
    ----------
    folder : str or path-like
        The value of the parameter `memory` (of a joblib.Memory, its location).
    max_bytes : int
        Bytes that may stay; 0 removes all.

    Returns
    -------
    removed : list of str
        Paths of the removed files.

    Raises
    ------
    ValueError
        When `max_bytes` is no integer of at least 0.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_si.persistence import prune
    >>> prune(tempfile.mkdtemp(), max_bytes=10**9)
    []
    """
    if not isinstance(max_bytes, numbers.Integral) or isinstance(max_bytes, bool) or max_bytes < 0:
        raise ValueError(f"Got max_bytes={max_bytes!r}, but expected an integer of at least 0.")
    place = pathlib.Path(folder) / "sklearn_si"
    found = [(path, _KEPT.fullmatch(path.name)) for path in sorted(place.iterdir())] if place.is_dir() else []
    removed = [path for path, match in found if match and match["cut_off"]]
    kept = [(path, path.stat()) for path, match in found if match and not match["cut_off"]]
    left = sum(status.st_size for _, status in kept)
    for path, status in sorted(kept, key=lambda pair: pair[1].st_mtime):
        if left <= int(max_bytes):
            break
        removed.append(path)
        left -= status.st_size
    for path in removed:
        path.unlink(missing_ok=True)  # another process may have been faster
    return [os.fspath(path) for path in removed]
