"""What the tests run on, and how Hypothesis runs in all of them."""

import gc
from importlib.util import find_spec

import pytest
from hypothesis import settings

if find_spec("neurodyn.models") is None:  # neurodyn/ is taken from here, and models/ lies beside it
    raise pytest.UsageError("the tests need neurodyn installed from this folder: pip install --editable '.[test]'")

# No deadline: how long an example takes says something of the machine, and of what else runs on it.
settings.register_profile("neurodyn", deadline=None)
settings.load_profile("neurodyn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first what starts other programs, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not {"train", "studies"} & set(item.path.parts))


def pytest_collection_finish() -> None:
    """Spare every garbage collection from looking through all that has been imported, and lasts."""
    gc.collect()
    gc.freeze()
