"""How studies draw in their tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.scale import LogScale, SymmetricalLogScale
from matplotlib.ticker import NullLocator

from neurodyn import progress


@pytest.fixture(scope="module", autouse=True)
def _drawn_plainly() -> Iterator[None]:
    """Leave out what takes most of a figure's time, and no test looks at.

    That is the minor ticks of logarithmic axes, which are hundreds, the constrained layout, for which all is drawn once
    more, the PDF of what is drawn as a PNG, and most of that one's pixels.
    """
    with pytest.MonkeyPatch.context() as patch:
        for scale in (LogScale, SymmetricalLogScale):
            own = scale.set_default_locators_and_formatters

            def without(self: LogScale | SymmetricalLogScale, axis: Axis, own=own) -> None:
                own(self, axis)
                axis.set_minor_locator(NullLocator())

            patch.setattr(scale, "set_default_locators_and_formatters", without)
        patch.setattr(FigureCanvasPdf, "print_pdf", lambda self, filename, **_: Path(filename).touch())
        patch.setattr(Figure, "set_layout_engine", lambda self, layout=None, **_: None)
        savefig = Figure.savefig
        patch.setattr(Figure, "savefig", lambda self, *where, **how: savefig(self, *where, **{**how, "dpi": 30}))
        yield


@pytest.fixture(autouse=True)
def _progress_as_it_was() -> Iterator[None]:
    """Take back what a study says of progress as it reads its options."""
    yield
    progress.show(None)
