"""Runs of stacked networks: what belongs to each of them, along a dimension `network`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurodyn.labelled import xr
from neurodyn.network.network import Network


def apart(run: xr.Dataset, networks: Sequence[Network]) -> xr.Dataset:
    """Give a run of stacked networks, or a part of it, a dimension `network` in front of `sample`.

    Parameters
    ----------
    run
        Of the samples of the first network, then those of the second, and so on; what is made of samples has the
        dimension already.
    networks
        The networks.
    """
    members, coordinates = len(networks), dict(run.coords.variables)
    variables: dict[str, xr.Variable] = {}
    for name, variable in run.data_vars.items():
        dims, shape = list(variable.dims), list(variable.shape)
        if "sample" in dims:
            axis = dims.index("sample")
            dims.insert(axis, "network")
            shape[axis : axis + 1] = members, shape[axis] // members
        elif "network" not in dims:  # what is made of the samples of one alone
            axis = dims.index("time") + 1 if "time" in dims else 0
            dims.insert(axis, "network")
            shape.insert(axis, 1)
        attributes = dict(variable.attrs)
        for number in ("tau", "leak"):
            if number in attributes and len({getattr(network[str(name)], number) for network in networks}) > 1:
                del attributes[number]
        # A view: such a run may fill half of the memory.
        variables[str(name)] = xr.Variable(dims, variable.values.reshape(shape), attributes)
    if len(_inferences(networks)) > 1:  # no one step is the declared one
        for each in variables.values():
            each.attrs.pop("inference_step", None)
            each.attrs.pop("solver", None)
    if "sample" in run.coords:
        coordinates["sample"] = run["sample"].variable[: run.sizes["sample"] // members]
    coordinates["network"] = xr.Variable("network", np.arange(members), {"units": "1", "long_name": "network"})
    return xr.Dataset(variables, coordinates, facts(run.attrs, networks) if run.attrs else None)


def facts(attributes: Mapping[str, Any], networks: Sequence[Network]) -> dict[str, Any]:
    """Return the attributes of a run of stacked networks, with what each of them says."""
    own = {"equations": "\n\n".join(dict.fromkeys(network.equations() for network in networks))}
    inferences = _inferences(networks)
    if inferences:
        own["inference_not_run"] = ", ".join(inferences)
    return {**attributes, **own}


def _inferences(networks: Sequence[Network]) -> list[str]:
    return list(dict.fromkeys(str(each.inference) for each in networks if each.inference is not None))
