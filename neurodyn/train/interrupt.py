"""An interruption of a run from the keyboard."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Notes a first SIGINT, so that the batch at hand is finished; a second one interrupts at once."""

    def __init__(self, active: bool) -> None:
        self.pending = False
        own = threading.current_thread() is threading.main_thread()
        self._active = active and own and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self) -> Interrupt:
        if self._active:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
