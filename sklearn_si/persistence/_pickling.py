"""Pickles of fitted estimators that hold networks as arrays, so that any machine can load and skops can write them."""

import abc
import copy
import json
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from ._archive import FREE, REPEATED, Reader, Writer


class HoldsNetworks(abc.ABC):
    """A value that contains networks and can be split into them and the rest."""

    @abc.abstractmethod
    def networks(self) -> dict[str, Any]:
        """The networks, and dicts of them, by name."""

    @abc.abstractmethod
    def with_networks(self, networks: dict[str, Any]) -> "HoldsNetworks":
        """The same value with these networks in place of its own."""


class PackedNetworks(BaseEstimator):
    """An estimator whose pickled state holds its networks as text and arrays, on the CPU.

    A subclass lists in `_networks` the attributes that are networks, dicts of networks, or contain them. Networks that
    a user's function made cannot be described; they are moved to the CPU and otherwise stay as they are.
    """

    _networks: ClassVar[tuple[str, ...]] = ()

    def _network_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The networks of a state, by the names of their attributes."""
        held = {name: state[name] for name in self._networks if state.get(name) is not None}
        return {n: value.networks() if isinstance(value, HoldsNetworks) else value for n, value in held.items()}

    def _plain_state(self) -> dict[str, Any]:
        """The state with its networks on the CPU."""
        state: dict[str, Any] = dict(super().__getstate__())
        # All are copied at once, because the networks share parts.
        networks = copy.deepcopy(self._network_state(state))
        for value in networks.values():
            _to_cpu(value)
        return state | _joined(state, networks)

    def __getstate__(self) -> dict[str, Any]:
        """The state with its networks packed."""
        state = self._plain_state()
        networks = self._network_state(state)
        packed = pack(networks, type(self).__name__) if networks else None
        if packed is None:
            return state
        bare = {name: dict.fromkeys(value) if isinstance(value, dict) else None for name, value in networks.items()}
        return state | _joined(state, bare) | {"_packed_networks": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the state, and unpack its networks."""
        state = dict(state)
        packed = state.pop("_packed_networks", None)
        super().__setstate__(state)
        if packed is not None:
            self.__dict__.update(_joined(state, unpack(packed)))


def _joined(state: dict[str, Any], networks: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a state with these networks in place of their own."""
    held = {name: state.get(name) for name in networks}
    return {n: v.with_networks(networks[n]) if isinstance(v, HoldsNetworks) else networks[n] for n, v in held.items()}


def _to_cpu(value: Any) -> None:
    for module in value.values() if isinstance(value, dict) else [value]:
        if isinstance(module, dict):
            _to_cpu(module)
        elif module is not None:
            module.cpu()


def pack(value, place):
    """A value as a dict of one text and of arrays, as files hold it; None where it cannot be described."""
    writer = Writer()
    try:
        tree = writer.node(value, place)
    except ValueError:
        return None
    return {"tree": json.dumps(tree, allow_nan=False), "arrays": writer.arrays}


def unpack(packed):
    """The value that was packed."""
    return _Unpacker(packed["arrays"], len(packed["tree"])).value(json.loads(packed["tree"]), 0)


class _Unpacker(Reader):
    """The objects of a packed value."""

    def __init__(self, arrays, length):
        self.arrays, self.seen, self.left = arrays, {}, FREE + REPEATED * length

    def _read(self, name):
        return self.arrays[name].copy(order="K")
