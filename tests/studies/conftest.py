"""How studies draw in their tests."""

from collections.abc import Iterator

import pytest
from matplotlib.axis import Axis
from matplotlib.scale import LogScale, SymmetricalLogScale
from matplotlib.ticker import NullLocator


@pytest.fixture(scope="session", autouse=True)
def _no_minor_ticks() -> Iterator[None]:
    """Leave out the minor ticks of logarithmic axes, which are hundreds, and half of the time that a figure takes."""
    with pytest.MonkeyPatch.context() as patch:
        for scale in (LogScale, SymmetricalLogScale):
            own = scale.set_default_locators_and_formatters

            def without(self: LogScale | SymmetricalLogScale, axis: Axis, own=own) -> None:
                own(self, axis)
                axis.set_minor_locator(NullLocator())

            patch.setattr(scale, "set_default_locators_and_formatters", without)
        yield
