"""What a benchmark takes from its command line, and refuses there."""

from __future__ import annotations

import argparse
from pathlib import Path

from neurodyn.checks import writable_folder


def count(text: str) -> int:
    """Return a number of things, of which there is at least one."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def folder(text: str) -> Path:
    """Return a folder that can be written to, or made."""
    try:
        writable_folder("a folder", Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)
