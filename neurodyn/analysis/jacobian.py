"""The Jacobian of a network's dynamics."""

from __future__ import annotations

from neurodyn.analysis.linearised import labels, linearised, point_of
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.trajectory import to_numpy
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets


def jacobian(
    network: Network, inputs: Inputs = None, targets: Targets = None, *, at: Starts | None = None
) -> xr.Dataset:
    """Return J = ∂F/∂x of dx/dt = F(x), by automatic differentiation.

    The units are those of the dynamic populations; instantaneous ones are followed on the way. At a kink, such as where
    a unit of predictive coding with ReLU rests at 0, it is what PyTorch takes for the derivative: that from below, of
    ReLU. `stability` leaves out the units that are held there.

    Parameters
    ----------
    network, inputs, targets
        As for `nd.simulate`; without noise, and with data that stand still.
    at
        Where: populations by name, shape (sample, …) or that of a sample, the others where they start; or one moment of
        a run. By default the equilibrium that the dynamics reach.

    Returns
    -------
    xarray.Dataset
        `jacobian`, in 1/units of time, with the dimensions `sample`, `target` and `source`, and coordinates that tell
        their populations and units.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, a map cannot be differentiated, or no equilibrium is reached.
    MemoryError
        If memory cannot hold it.

    Examples
    --------
    >>> import neurodyn as nd
    >>> decay = nd.Network("decay", [nd.Population("x", 1, tau=2.0)])
    >>> float(nd.analysis.jacobian(decay).jacobian.squeeze())
    -0.5
    """
    with linearised(network, inputs, targets, at, "a Jacobian") as about:
        x = point_of(about, at)
        refuse_too_large("the Jacobian", x.numel() * about.units * x.element_size(), "take fewer samples")
        values = to_numpy(about.matrix(x))
        return xr.Dataset(
            {"jacobian": (("sample", "target", "source"), values, {"units": "1/tau", "long_name": "∂(dx/dt)/∂x"})},
            {**labels(about, "target"), **labels(about, "source")},
            {"network": network.name, "equations": network.equations()},
        )
