"""The stability of an equilibrium."""

from __future__ import annotations

import torch

from neurodyn.analysis.linearised import linearised, point_of
from neurodyn.analysis.spectrum import spectra, variables
from neurodyn.checks import whole
from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets

_FEW = 6
"""How many eigenvalues Arnoldi's method is asked for by default."""
_AT_REST = 1e3
"""By how many roots of the machine epsilon, relative to the activity, τ dx/dt may be off at an equilibrium given."""


def stability(
    network: Network,
    inputs: Inputs = None,
    targets: Targets = None,
    *,
    at: Starts | None = None,
    count: int | None = None,
) -> xr.Dataset:
    """Return the eigenvalues λ of J = ∂F/∂x at an equilibrium, which is stable where all Re λ < 0.

    Up to 500 units of a sample J is worked out whole, and beyond that Arnoldi's method finds its rightmost
    eigenvalues, and those of the largest modulus, from products with J. Units that a bound holds, or that F holds at
    their kink, are left out; `mode` is as long as the fewest units that are free in a sample.

    Parameters
    ----------
    network, inputs, targets
        As for `nd.simulate`; without noise, and with data that stand still.
    at
        The equilibrium: what `nd.equilibrium` returns; a point of `nd.analysis.continuation`, `branch.isel(arc=-1)`, by
        `branch[["v", "w"]].isel(arc=-1).astype("float32")` where the network is in single precision; or populations by
        name, the others where they start. By default the one that the dynamics reach.
    count
        How many eigenvalues to return; by default all up to 500 units, and 6 beyond.

    Returns
    -------
    xarray.Dataset
        Over `sample` and `mode`, the rightmost first: `growth`, Re λ, and `frequency`, Im λ. Over `sample`: `abscissa`,
        the largest Re λ, −∞ where every unit is held; `stable`; `euler_step`, the largest step of Euler's method
        under which every known mode decays, min −2 Re λ / |λ|², 0 where one does not decay; and `eigenvalue_residual`,
        ‖Jᵀv − λv‖ / ‖λv‖ of what Arnoldi's method found.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, the point is no equilibrium, or Arnoldi's method does not converge.

    Examples
    --------
    >>> import neurodyn as nd
    >>> decay = nd.Network("decay", [nd.Population("x", 1, tau=2.0)])
    >>> found = nd.analysis.stability(decay)
    >>> float(found.abscissa[0]), float(found.euler_step[0])
    (-0.5, 4.0)
    """
    with linearised(network, inputs, targets, at, "the stability of an equilibrium") as about:
        if count is not None and whole("count", count, least=1) > about.units:
            raise InvalidValueError(f"count: there are {about.units} eigenvalues, and {count} are asked for")
        if not about.small and (count or _FEW) > about.units - 2:
            raise InvalidValueError(f"count: Arnoldi's method finds fewer than {about.units - 1} eigenvalues")
        x = point_of(about, at)
        off = (about.tau * about.slope(x)).abs().amax(1)
        if bool((off > _AT_REST * torch.finfo(x.dtype).eps ** 0.5 * x.abs().amax(1).clamp_min(1.0)).any()):
            shared = about.system.structure.windows
            raise InvalidValueError(
                f"at: it is no equilibrium, max |τ dx/dt| is {float(off.max()):.3g}; nd.equilibrium returns one"
                + (", which has no Jacobian where units of max pooling rest side by side" if shared else "")
            )
        about.refuse_repelled(x)
        modes = count or (about.units if about.small else _FEW)
        if not bool(about.free(x).all()):
            modes = min(modes, int(about.free(x).sum(1).min()))
        found = spectra(about, x, modes)
    steps = [each.euler_step for each in found]
    return xr.Dataset(
        {
            **variables("sample", found, modes),
            "euler_step": ("sample", steps, {"units": "tau", "long_name": "largest stable Euler step"}),
        },
        attrs={"network": network.name, "equations": network.equations()},
    )
