"""Progress of what takes long: a bar on a terminal, or a line every ten seconds in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

AFTER = 2.0
"""Seconds after which it is first shown."""
EVERY = 10.0
"""Seconds between the lines in a log file."""


class Bar(tqdm):  # type: ignore[misc] # tqdm is not typed
    """A bar for things that are gone through, or of `total` steps.

    Parameters
    ----------
    things
        What is gone through, if anything.
    wanted
        Whether to show it; None for on a terminal only.
    file
        Where; by default the standard error.
    look
        As tqdm takes it: total, unit, desc, ….
    """

    def __init__(
        self,
        things: Iterable[Any] | None = None,
        *,
        wanted: bool | None = None,
        file: TextIO | None = None,
        **look: Any,
    ) -> None:
        out = sys.stderr if file is None else file
        terminal = out is not None and out.isatty()  # a program without a console has none
        shown = terminal if wanted is None else wanted and out is not None
        self._in_lines, self._last = not terminal, False
        if self._in_lines:
            look |= {"mininterval": EVERY, "ncols": 0}
        # A bar within another one goes when it is done.
        super().__init__(things, file=out, disable=not shown, delay=AFTER, miniters=0, leave=None, **look)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Show where it stands."""
        if not self._in_lines:
            shown: bool | None = super().display(msg, pos)
            return shown
        if msg != "":
            self.fp.write(str(self if msg is None else msg) + "\n" * (not self._last))
            self.fp.flush()
        return True

    def moveto(self, n: int) -> None:
        """Go to another line of the terminal; in a log file, the next one follows."""
        if not self._in_lines:
            super().moveto(n)

    def clear(self, nolock: bool = False) -> None:
        """Take it off the terminal; in a log file, what is written stays."""
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """Show the end, if it has been shown at all."""
        self._last = True  # after which tqdm itself ends the line
        super().close()
