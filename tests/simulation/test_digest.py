"""What a function reads: that a change of any part of it is noticed."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurodyn.simulation.digest import digest
from neurodyn.simulation.fingerprint import of_function

READ = {
    "a function with a cache": "@functools.cache\ndef f(x): return {} * x\ndef point(x): return f(x)",
    "itself, with a cache": "@functools.lru_cache(2)\ndef point(x): return {} * x",
    "a property": "class A:\n  @property\n  def k(self): return {}\ndef point(x): return A().k * x",
    "a static method": "class A:\n  @staticmethod\n  def k(): return {}\ndef point(x): return A.k() * x",
    "a class method": "class A:\n  @classmethod\n  def k(cls): return {}\ndef point(x): return A.k() * x",
    "a class that it inherits from": "class B:\n  k = {}\nclass A(B): pass\ndef point(x): return A().k * x",
    "a method of such a class": "class B:\n  def f(self, x): return {} * x\nclass A(B): pass\npoint = A().f",
    "a metaclass": "class M(type):\n  k = {}\nclass A(metaclass=M): pass\ndef point(x): return A.k * x",
    "a function of several kinds": "@functools.singledispatch\ndef f(x): return x\n@f.register\n"
    "def _(x: int): return {} * x\ndef point(x): return f(x)",
    "an attribute of a function": "def f(x): return f.k * x\nf.k = {}\ndef point(x): return f(x)",
    "a default of a mapping": "d = collections.defaultdict(lambda: {})\ndef point(x): return d[0] * x",
    "a mask": "m = np.ma.array([1, 2], mask=[{} == 1, False])\ndef point(x): return m.sum() * x",
    "a sparse tensor": "w = torch.tensor([[0.0, {}]]).to_sparse()\ndef point(x): return w * x",
    "what cannot be copied": "class A:\n  def __reduce_ex__(self, protocol): raise TypeError\na = A()\na.k = {}\n"
    "def point(x): return a.k * x",
}  # fmt: skip


@pytest.mark.parametrize("read", READ)
def test_a_change_of_what_is_read_is_noticed(read: str) -> None:
    def found(value: int) -> dict[str, str]:
        variables: dict[str, Any] = {"__name__": "__main__"}
        exec("import collections, functools\nimport numpy as np, torch\n" + READ[read].format(value), variables)
        return of_function("point", variables["point"])

    one = found(1)
    assert one == found(1)
    assert one != found(2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize(
    "code",
    [
        "import settings\ndef point(x): return settings.k * x",
        "from settings import scaled\ndef point(x): return scaled(x)",
        "import parts.settings as own\ndef point(x): return own.scaled(x)",
        "import parts.settings\ndef point(x): return parts.settings.k * x",
        "def point(x):\n  import settings\n  return settings.k * x",
        "def point(x):\n  from parts import settings\n  return settings.scaled(x)",
        "def point(x):\n  import parts.settings as own\n  return own.k * x",
    ],
)
def test_a_change_of_what_a_module_has_of_it_is_noticed(code: str, folder: Path) -> None:
    def found(value: int, unread: int = 0) -> dict[str, str]:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("settings", "parts")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        for path in (folder / "settings.py", folder / "parts" / "settings.py"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"k = {value}\nother = {unread}\n\ndef scaled(x):\n    return k * x\n")
        variables: dict[str, Any] = {"__name__": "__main__", "__package__": None}
        exec(code, variables)
        return of_function("point", variables["point"])

    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        one = found(1)
        assert found(2) != one
        assert found(1, unread=5) == one
    finally:
        sys.dont_write_bytecode = before


def test_functions_of_numpy_count_by_their_names_and_open_files_by_their_class() -> None:
    assert digest(np.sin) != digest(np.cos)
    with Path(__file__).open() as one, Path(__file__).open("rb") as other:
        assert digest(one) != digest(other)
