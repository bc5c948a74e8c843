"""Networks of models within a model, under names that tell whose they are."""

from typing import Any

# What joins the name of a model within with that of its network.
_MARK = ":"


def networks_within(parts: dict[str, Any]) -> dict[str, Any]:
    """The networks of models by name, each under the name of its model and its own."""
    return {f"{name}{_MARK}{n}": net for name, part in parts.items() for n, net in part.networks().items()}


def own_networks(networks: dict[str, Any]) -> dict[str, Any]:
    """Those that belong to no model within."""
    return {name: net for name, net in networks.items() if _MARK not in name}


def with_networks_within(parts: dict[str, Any], networks: dict[str, Any]) -> dict[str, Any]:
    """The models by name, with those of some networks that are theirs."""
    found: dict[str, dict] = {name: {} for name in parts}
    for name, network in networks.items():
        whose, mark, own = name.partition(_MARK)
        if mark:
            found[whose][own] = network
    return {name: part.with_networks(found[name]) for name, part in parts.items()}
