"""What tests of files share: a trajectory with all kinds of dimensions, and comparisons that overlook nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.problems import cnn


def run(dtype: torch.dtype = torch.float64) -> xr.Dataset:
    example = cnn(dtype=dtype)
    settings: dict[str, Any] = {"duration": 1.0, "solver": nd.Euler(0.25), "record": ["s", "x1", "x2", "x4"]}
    return nd.simulate(ar.network(example.module), example.inputs, example.targets, **settings)


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Compare everything: values, dtypes, dimensions, coordinates and all attributes with their types."""
    xr.testing.assert_identical(found, expected)
    assert list(found.data_vars) == list(expected.data_vars)
    assert dict(found.sizes) == dict(expected.sizes)
    for name in expected.variables:
        assert found[name].dtype == expected[name].dtype
        assert found[name].dims == expected[name].dims
        assert found[name].attrs == expected[name].attrs
    assert list(found.attrs) == list(expected.attrs)
    for name, value in expected.attrs.items():
        assert type(found.attrs[name]) is (type(value.item()) if isinstance(value, np.generic) else type(value))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
