"""How much memory is free, and what it cannot hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from neurodyn.errors import InsufficientMemoryError

if sys.platform != "win32":
    import resource

_SMALL = 2**26
"""What is not worth asking the system for."""
_SHARE = 0.9
"""Of what is free, what a result may take; the rest is for the run itself."""
_CGROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),  # version 2
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the hierarchy's folder: the files with limit and use, and what of the use are files that the kernel lets go of."""


def refuse_too_large(what: str, needed: int, remedy: str, device: torch.device | None = None) -> None:
    """Refuse what memory cannot hold.

    Parameters
    ----------
    what
        What would take it.
    needed
        How much that is, in bytes.
    remedy
        What would take less.
    device
        Where; by default on the host.

    Raises
    ------
    MemoryError
        If it is more than is free.
    """
    if needed < _SMALL:
        return
    cuda = device is not None and device.type == "cuda"
    free = _free_on(device) if cuda and device is not None else free_memory()
    if needed > _SHARE * free:
        place = f" on {device}" if cuda else ""
        raise InsufficientMemoryError(
            f"{what} would take {_readable(needed)} of memory{place}, of which {_readable(free)} are free; {remedy}"
        )


def free_memory() -> int:
    """Return how many bytes this process can still take, by the system, its control groups, and its own limit."""
    return max(0, min([_available(), *_left_in_groups(), *_left_in_address_space()]))


def _available() -> int:
    if (meminfo := _read(Path("/proc/meminfo"))) and "MemAvailable" in (figures := _figures(meminfo)):
        return 1024 * figures["MemAvailable"]
    if sys.platform == "win32":
        return sys.maxsize
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # all there is, where none says what is free


def _left_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Iterate over what the control groups of this process, and those around them, leave it."""
    for line in _read(own).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers not in _CGROUP_FILES:
            continue
        limit_file, use_file, reclaimable = _CGROUP_FILES[controllers]
        hierarchy = root / controllers
        # In a container, the path may be the one outside, of which nothing but the top is to be seen.
        inner = hierarchy / group.lstrip("/")
        for folder in [inner, *inner.parents][: len(inner.relative_to(hierarchy).parts) + 1]:
            limit, use = _read(folder / limit_file).strip(), _read(folder / use_file).strip()
            if limit.isdigit() and use.isdigit():
                yield int(limit) - int(use) + _figures(_read(folder / "memory.stat")).get(reclaimable, 0)


def _left_in_address_space() -> Iterator[int]:
    if sys.platform == "win32":
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and (pages := _read(Path("/proc/self/statm")).split()):
        yield limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _free_on(device: torch.device) -> int:
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # there is no such thing on this system
        return ""


def _figures(text: str) -> dict[str, int]:
    """Return the figures of a file of lines such as `MemAvailable:  1234 kB` or `inactive_file 1234`."""
    lines = (line.split() for line in text.splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _readable(size: float) -> str:
    size = min(size, 1e300)  # an integer may be beyond the range of floats
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"
