"""Runs of several networks, taken apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurodyn.labelled import xr
from neurodyn.network.network import Network


def apart(run: xr.Dataset, networks: Sequence[Network]) -> xr.Dataset:
    """Give a run of stacked networks a dimension `network`."""
    members, samples = len(networks), run.sizes["sample"] // len(networks)
    variables: dict[str, xr.Variable] = {}
    for name, variable in run.data_vars.items():
        axis = variable.dims.index("sample")
        shape = (*variable.shape[:axis], members, samples, *variable.shape[axis + 1 :])
        # A view: such a run may fill half of the memory.
        values = np.moveaxis(variable.values.reshape(shape), axis, 0)
        attributes = dict(variable.attrs)
        for number in ("tau", "leak"):
            if number in attributes:
                numbers = {getattr(network[str(name)], number) for network in networks}
                if len(numbers) > 1:
                    del attributes[number]
        variables[str(name)] = xr.Variable(("network", *variable.dims), values, attributes)
    own = run["sample"].variable[:samples]
    places = xr.Variable("network", np.arange(members), {"units": "1", "long_name": "network"})
    found = xr.Dataset(variables, {**run.coords.variables, "sample": own, "network": places})
    equations = dict.fromkeys(network.equations() for network in networks)
    attributes = run.attrs | {"equations": "\n\n".join(equations)}
    inferences = dict.fromkeys(str(network.inference) for network in networks if network.inference is not None)
    if inferences:
        attributes["inference_not_run"] = ", ".join(inferences)
    if len(inferences) > 1:  # no one step is the declared one
        for variable in found.data_vars.values():
            variable.attrs.pop("inference_step", None)
            variable.attrs.pop("solver", None)
    return found.assign_attrs(attributes)
