"""Pickles of fitted estimators: networks as arrays, so that they load anywhere and skops can write them."""

import copy
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from ._archive import pack, unpack


class PackedNetworks(BaseEstimator):
    """An estimator whose pickled state holds its networks packed as text and arrays, on the CPU.

    A leaf names the attributes that are networks, or dicts of them, in `_networks`. Networks of a factory, which cannot
    be described, stay as they are, moved to the CPU.
    """

    _networks: ClassVar[tuple[str, ...]] = ()

    def _plain_state(self):
        """The state with its networks on the CPU."""
        state: dict[str, Any] = dict(super().__getstate__())
        names = [name for name in self._networks if state.get(name) is not None]
        # one copy for all, because the networks share their parts
        for name, value in copy.deepcopy({name: state[name] for name in names}).items():
            for module in value.values() if isinstance(value, dict) else [value]:
                module.cpu()
            state[name] = value
        return state

    def __getstate__(self):
        """The state with its networks packed."""
        state = self._plain_state()
        networks = {name: state[name] for name in self._networks if state.get(name) is not None}
        packed = pack(networks, type(self).__name__) if networks else None
        if packed is None:
            return state
        return {name: value for name, value in state.items() if name not in networks} | {"_packed_networks": packed}

    def __setstate__(self, state):
        """Take a state, and unpack its networks."""
        state = dict(state)
        packed = state.pop("_packed_networks", None)
        super().__setstate__(state)
        if packed is not None:
            self.__dict__.update(unpack(packed))
