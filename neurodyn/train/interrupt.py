"""An interruption of a run from the keyboard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(active: bool) -> Iterator[threading.Event]:
    """Note a first SIGINT by an event, so that the batch at hand is finished; a second one interrupts at once."""
    pending = threading.Event()
    own = threading.current_thread() is threading.main_thread()
    if not (active and own and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield pending
        return

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pending.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield pending
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
