"""What is installed: what the metadata say, what an import loads, and what is missing without the extras."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import xarray as xr

import neurodyn as nd
from neurodyn.errors import NeurodynError

ROOT = Path(__file__).parents[1]
EXTRAS = {"dask", "distributed", "numcodecs", "pooch", "sklearn", "tyro", "zarr"}


def run(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_import_loads_little_beside_torch() -> None:
    code = "import sys, torch; before = set(sys.modules); import neurodyn; print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in run(code).split()}
    late = {"h5netcdf", "h5py", "matplotlib", "networkx", "pandas", "scipy", "sympy", "torchdiffeq", "xarray"}
    assert loaded & (EXTRAS | late) == set()
    assert "neurodyn" in loaded


MISSING: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "digits": ("sklearn", "data", lambda folder: nd.data.digits()),
    "a download": ("pooch", "data", lambda folder: nd.data.mnist()),
    "saving a store": ("zarr", "zarr", lambda folder: nd.save(recorded(), folder / "run.zarr")),
    "loading a store": ("zarr", "zarr", lambda folder: nd.load(folder / "saved.zarr")),
    "chunks of a store": ("dask", "zarr", lambda folder: nd.load(folder / "saved.zarr")),
    "streaming": ("zarr", "zarr", lambda folder: recorded(store=folder / "run.zarr")),
    "checking what is streamed": ("google_crc32c", "zarr", lambda folder: recorded(store=folder / "run.zarr")),
    "reading what is streamed": ("dask", "zarr", lambda folder: recorded(store=folder / "run.zarr")),
    "threads": ("dask", "sweep", lambda folder: nd.sweep(square, {"x": [1.0, 2.0]}, scheduler="threads")),
    "a cluster": ("distributed", "sweep", lambda folder: nd.sweep(square, {"x": [1.0]}, scheduler="distributed")),
}


def square(x: float) -> dict[str, float]:
    return {"y": x * x}


def recorded(store: Path | None = None) -> xr.Dataset:
    network = nd.Network("leak", [nd.Population("x", 1, initial=1.0)], [])
    return nd.simulate(network, None, duration=1.0, save_at=3, store=store)


@pytest.mark.parametrize("what", MISSING)
def test_a_missing_extra_is_named_where_it_is_needed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra, call = MISSING[what]
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    nd.save(recorded(), tmp_path / "saved.zarr")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        NeurodynError, match=re.escape(f"{package}, which is not installed: pip install 'neurodyn[{extra}]'")
    ) as error:
        call(tmp_path)
    assert isinstance(error.value, ImportError)
    assert [file.name for file in tmp_path.iterdir()] == ["saved.zarr"]


WITHOUT_EXTRAS = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name.split(".")[0] in {EXTRAS} else find(name, *where)
"""


def test_all_but_what_the_extras_bring_works_without_them(tmp_path: Path) -> None:
    use = """
import torch
import neurodyn as nd

network = nd.models.activation_relaxation.network(nd.mlp([3, 4, 2], seed=0))
x, t = torch.rand(8, 3), torch.rand(8, 2)
run = nd.simulate(network, x, t, duration=2.0)
assert nd.load(nd.save(run, "run.nc")).identical(run)
nd.simulate(network, x, t, duration=2.0, solver=nd.TorchDiffEq("dopri5"))
nd.equilibrium(network, x, t)
nd.backward(network, x, t)
nd.train.fit(network, (x, t), epochs=2, checkpoint="checkpoint")
assert nd.sweep(lambda x: {"y": x * x}, {"x": [1.0, 2.0]}).y.values.tolist() == [1.0, 4.0]
network.plot().figure.savefig("network.png")
"""
    run(WITHOUT_EXTRAS + use, tmp_path)


def test_a_study_names_the_extra_that_it_needs() -> None:
    start = """
import pathlib, runpy, sys

sys.path.insert(0, "studies")
for script in pathlib.Path("studies").glob("*.py"):
    try:
        runpy.run_path(str(script), run_name="__main__")
    except ImportError as error:
        print(script.name, error)
"""
    told = run(WITHOUT_EXTRAS + start).splitlines()
    assert sorted(line.split()[0] for line in told) == sorted(path.name for path in (ROOT / "studies").glob("*.py"))
    assert all(line.endswith("needs tyro, which is not installed: pip install 'neurodyn[studies]'") for line in told)


def test_every_room_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "neurodyn").rglob("*.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == {room.replace("/", ".") for room in rooms} | {
        "neurodyn.models"
    }


def test_the_metadata_point_to_what_an_index_does_not_hold(tmp_path: Path) -> None:
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    for room in ("models", "neurodyn"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "built").mkdir()
    run("from setuptools.build_meta import prepare_metadata_for_build_wheel as made; made('built')", tmp_path)
    (folder,) = (tmp_path / "built").glob("*.dist-info")
    built = PathDistribution(folder)
    text, urls = str(built.metadata["Description"]), built.metadata.get_all("Project-URL", [])
    links = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text)
    assert links
    assert [link for link in links if not "".join(link).startswith("https://")] == []
    (repository,) = (url.removeprefix("Homepage, ") for url in urls if url.startswith("Homepage, "))
    images = re.findall(rf"{repository}/raw/main/([^)\"]+)", text)
    assert "docs/relaxation.gif" in images
    assert all((ROOT / image).exists() for image in images)
    required = {re.split(r"[^a-z0-9]", each)[0] for each in built.requires or () if "extra ==" not in each}
    assert "torch" in required
    assert required & EXTRAS == set()
