"""xarray, which is imported where it is first used: it brings pandas along, and takes a third as long as PyTorch."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["xr"]

if TYPE_CHECKING:
    import xarray as xr
else:

    class _Deferred(ModuleType):
        """A module that is imported when something of it is asked for."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module(self.__name__), name)
            setattr(self, name, value)
            return value

    xr = _Deferred("xarray")
