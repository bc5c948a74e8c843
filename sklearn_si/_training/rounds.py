"""The rounds of all trainings of a fit, as `history_` has them."""

from collections.abc import Iterable, Sequence
from typing import Any

from .loop import History


def rounds_of(trainings: Iterable[tuple[str, History]], before: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The rounds of some trainings in order, each with the number and the name of its training.

    Parameters
    ----------
    trainings : iterable of (str, History)
    before : sequence of dict, default=()
        Rounds after which they follow.
    """
    first = _next_run(before)
    rounds = [
        {"run": first + k, "training": name, **one} for k, (name, history) in enumerate(trainings)
        for one in history.rounds
    ]  # fmt: skip
    return [*before, *rounds]


def joined(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Rounds, and those of another model after them, whose trainings have a prefix and other numbers."""
    first = _next_run(before)
    moved = [
        {**one, "run": first + one.get("run", 0), "training": f"{prefix}{one['training']}"} for one in after
    ]  # fmt: skip
    return [*before, *moved]


def _next_run(rounds: Sequence[dict[str, Any]]) -> int:
    """The number of the training that follows; those of older files have none."""
    return 1 + max((one.get("run", 0) for one in rounds), default=-1)
