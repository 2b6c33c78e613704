"""Progress of what takes long: a bar on a terminal, or a line every ten seconds in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import parent_process
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

AFTER = 2.0
"""Seconds after which it is first shown."""
EVERY = 10.0
"""Seconds between the lines in a log file."""
_TICK = 1.0
"""Seconds after which a bar that nothing moves is drawn again on a terminal, so that one sees it live."""


_by_default: bool | None = None


def show(wanted: bool | None) -> None:
    """Have progress shown, or not, where nobody says whether to; None for on a terminal only, as it is at first."""
    global _by_default
    _by_default = wanted


def shown(wanted: bool | None, out: TextIO | None) -> bool:
    """Tell whether progress is shown.

    Parameters
    ----------
    wanted
        Whether to; None for what `show` was told.
    out
        Where; None in a program without a console.
    """
    wanted = _by_default if wanted is None else wanted
    if wanted is None:  # bars of several processes would be drawn over each other
        return out is not None and out.isatty() and parent_process() is None
    return wanted and out is not None


class Bar(tqdm):  # type: ignore[misc] # tqdm is not typed
    """A bar for things that are gone through, or of `total` steps.

    Parameters
    ----------
    things
        What is gone through, if anything.
    wanted
        Whether to show it; None for what `show` was told, at first on a terminal only.
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
        self._in_lines, self._last = out is None or not out.isatty(), False
        self._told: tuple[float, str | None] | None = None
        """How far it was, and what stood beside, when the last line was written in a log file."""
        self._over = threading.Event()
        if self._in_lines:
            look |= {"mininterval": EVERY, "ncols": 0}
        # A bar within another one goes when it is done.
        super().__init__(things, file=out, disable=not shown(wanted, out), delay=AFTER, miniters=0, leave=None, **look)
        if not self.disable:
            threading.Thread(target=self._keep_telling, daemon=True).start()

    def _keep_telling(self) -> None:
        """Show where it stands, though nothing moves it: one part of what is gone through may take minutes."""
        every = max(0.05, EVERY if self._in_lines else _TICK)
        while not self._over.wait(every):
            now = self._time()
            if now - self.start_t >= AFTER and now - self.last_print_t >= 0.9 * every:
                self.refresh()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown, numbers with as many digits as one reads."""
        found: dict[str, Any] = super().format_dict
        return {k: float(f"{v:.5g}") if k in ("n", "total") and isinstance(v, float) else v for k, v in found.items()}

    def __iter__(self) -> Iterator[Any]:
        """Go through the things; each counts as soon as it is done, for whatever line is written next."""
        try:
            for thing in self.iterable:
                yield thing
                self.update()
        finally:
            self.close()

    def update(self, n: float = 1) -> bool | None:
        """Move on by `n`, but not beyond the total, where steps of time may end."""
        shown: bool | None = super().update(n if self.total is None else min(n, self.total - self.n))
        return shown

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Show where it stands."""
        if not self._in_lines:
            shown: bool | None = super().display(msg, pos)
            return shown
        if msg != "":
            self.fp.write(str(self if msg is None else msg) + "\n" * (not self._last))
            self.fp.flush()
            self._told = self.n, self.postfix
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
        self._over.set()
        if self._told is not None and self._told == (self.n, self.postfix):
            self.last_print_t = self.start_t - 1.0  # as if never shown, so that the last line is not written twice
        self._last = True  # after which tqdm itself ends the line
        super().close()


class Late:
    """A bar of what is mostly soon over: it costs next to nothing before it is due, and is made no sooner.

    It takes what `Bar` does. Within `with`, it is what to `update`, or None where nothing is to be shown.
    """

    def __init__(self, *, wanted: bool | None = None, **look: Any) -> None:
        self._wanted, self._look = wanted, look
        self._bar: Bar | None = None
        self._gone: float = 0

    def __enter__(self) -> Late | None:
        self._began = time.time()  # by tqdm's clock
        return self if shown(self._wanted, sys.stderr) else None

    def update(self, n: float = 1) -> None:
        """Move on by `n`, or by nothing, to show that it still goes on."""
        if self._bar is not None:
            self._bar.update(n)
            return
        self._gone += n
        if time.time() - self._began >= AFTER:
            self._bar = Bar(wanted=self._wanted, **self._look)
            self._bar.start_t = self._bar.last_print_t = self._began
            self._bar.update(self._gone)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
