"""A page holds what the dataset holds, nothing that a name could smuggle in, and no more than 20 MB."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import neurodyn as nd
from neurodyn.view import page
from tests.view import datasets

DATASETS = {"inference": datasets.inference, "images": datasets.images, "chosen": datasets.chosen}
DATASETS["sweep"] = datasets.swept


class Elements(HTMLParser):
    """The elements of a page, with their attributes and what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = [("", {}, "")]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), ""))

    def handle_data(self, data):
        tag, attributes, text = self.found[-1]
        self.found[-1] = tag, attributes, text + data

    def by_id(self, name: str) -> str:
        return next(text for _, attributes, text in self.found if attributes.get("id") == name)


def written(data: xr.Dataset, folder: Path) -> tuple[Elements, dict]:
    path = nd.view(data, folder / "run.html")
    elements = Elements(path.read_text("utf-8"))
    return elements, json.loads(elements.by_id("meta"))


@pytest.mark.parametrize("name", DATASETS)
def test_it_holds_every_value(name, tmp_path):
    data = DATASETS[name]()
    elements, meta = written(data, tmp_path)
    names = [v["name"] for v in meta["variables"]]
    assert names == [name for name, v in data.data_vars.items() if v.dtype.kind in "fb"]
    coordinates = {each["name"]: each for each in [meta["along"], *meta["sliders"]]}
    for number, about in enumerate(meta["variables"]):
        values = data[about["name"]]
        raw = zlib.decompress(base64.b64decode(elements.by_id(f"values{number}")))
        dtype = {1: "u1", 4: "<f4", 8: "<f8"}[about["bytes"]]
        found = np.frombuffer(np.frombuffer(raw, "u1").reshape(about["bytes"], -1).T.tobytes(), dtype)
        own = [dim for dim in values.dims if dim not in coordinates]
        order = [*about["others"], *own, *([meta["along"]["name"]] if about["across"] else [])]
        expected = values.transpose(*order).values
        np.testing.assert_array_equal(found.reshape(expected.shape), expected.astype(dtype))
        assert [size for _, size in about["shape"]] == [values.sizes[dim] for dim in own]
        for dim, numbers in zip(own, about["numbers"], strict=True):
            np.testing.assert_array_equal(numbers or np.arange(values.sizes[dim]), values[dim])
    for name, each in coordinates.items():
        np.testing.assert_array_equal(each["values"], data[name])


def test_what_runs_across_is_time_or_step_or_the_longest_dimension_that_is_not_of_units(tmp_path):
    assert written(datasets.inference(), tmp_path)[1]["along"]["name"] == "step"
    assert written(datasets.images(), tmp_path)[1]["along"]["name"] == "time"
    assert written(datasets.swept(), tmp_path)[1]["along"]["name"] == "γ"
    kinds = {v["name"]: v["kind"] for v in written(datasets.inference(), tmp_path)[1]["variables"]}
    assert (kinds["energy"], kinds["x1"], kinds["e1_spikes"], kinds["acts"]) == ("curve", "map", "raster", "raster")
    assert {v["kind"] for v in written(datasets.swept(), tmp_path)[1]["variables"]} == {"curve", "number"}


def test_a_name_cannot_become_html(tmp_path):
    plain = nd.simulate(nd.Network("x", [nd.Population("x", 2, initial=1.0)]), None, duration=1.0, save_at=3)
    usual, _ = written(plain, tmp_path)
    elements, meta = written(datasets.hostile(), tmp_path)
    assert [tag for tag, _, _ in elements.found] == [tag for tag, _, _ in usual.found]
    assert meta["title"] == meta["variables"][0]["name"] == datasets.BAD
    assert not any(name.startswith("on") for _, attributes, _ in elements.found for name in attributes)


def test_nothing_is_fetched_and_only_its_own_script_runs(tmp_path):
    text = nd.view(datasets.images(), tmp_path / "run.html").read_text("utf-8")
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}
    for tag, attributes, _ in Elements(text).found:
        sources = {attributes.get(name) for name in ("src", "href") if name in attributes}
        assert sources <= {"data:,"}, tag
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "unsafe-eval" not in policy[1]


def test_a_large_dataset_is_thinned_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 300_000)
    data = datasets.large(units=100, times=1200)
    path = nd.view(data, tmp_path / "run.html")
    assert path.stat().st_size <= 300_000
    meta = json.loads(Elements(path.read_text("utf-8")).by_id("meta"))
    assert meta["notes"] == ["Thinned: one in 4 of 1,200 along time."]
    np.testing.assert_array_equal(meta["along"]["values"], data.time[::4])
    nd.view(xr.Dataset({"y": ("y_unit", np.random.default_rng(0).standard_normal(100_000))}), path)
    meta = json.loads(Elements(path.read_text("utf-8")).by_id("meta"))
    assert meta["notes"] == ["Thinned: one in 4 of 100,000 along y_unit."]
    assert meta["variables"][0]["numbers"] == [list(range(0, 100_000, 4))]
    whole = json.loads(Elements(page.page_of(data.isel(time=slice(300)))).by_id("meta"))
    assert whole["notes"] == []


def test_units_that_have_no_finite_number_are_called_by_their_text(tmp_path):
    data = xr.Dataset({"x": (("time", "x_unit"), np.ones((2, 3)))}, {"x_unit": [0.5, np.nan, -np.inf]})
    page = nd.view(data, tmp_path / "run.html").read_text("utf-8")
    about = json.loads(Elements(page).by_id("meta"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert about["variables"][0]["numbers"] == [[0.5, "nan", "-inf"]]


def test_what_cannot_be_shown_is_named(tmp_path):
    data = datasets.swept().assign(wave=("seed", [1j, 2j]))
    assert written(data, tmp_path)[1]["notes"] == [
        "wave is not shown: it holds complex128.",
    ]


def test_words_and_single_numbers_are_told(tmp_path):
    data = datasets.swept().assign_attrs(residual=1e-9, evaluations=12, solver="Euler")
    _, meta = written(data, tmp_path)
    assert meta["facts"] == [["residual", "1e-09"], ["evaluations", "12"]]
    assert meta["texts"] == [{"name": "solver", "others": ["seed"], "values": ["a", "b"]}]


def test_words_are_thinned_with_the_numbers_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 60_000)
    values = np.random.default_rng(0).standard_normal((2, 8000))
    names = [f"run {number}" for number in range(8000)]
    data = xr.Dataset({"x": (("time", "run"), values), "name": ("run", names)})
    _, meta = written(data, tmp_path)
    (slider,), (texts,) = meta["sliders"], meta["texts"]
    assert len(slider["values"]) < 8000
    assert texts["values"] == [names[int(number)] for number in slider["values"]]


@pytest.mark.parametrize(
    ("data", "path", "error", "message"),
    [
        (xr.DataArray([1.0]), "run.html", TypeError, "to_dataset"),
        ([1.0], "run.html", TypeError, "must be an xarray.Dataset, not list"),
        (xr.Dataset({"x": ("a", [1.0])}), "run.png", ValueError, "must end in .html"),
        (xr.Dataset({"x": ("a", ["b"])}), "run.html", ValueError, "no variable"),
        (xr.Dataset({"x": ("time", np.empty(0))}), "run.html", ValueError, "no variable"),
        (xr.Dataset(), "run.html", ValueError, "no variable"),
    ],
)
def test_what_is_wrong_is_said(data, path, error, message, tmp_path):
    with pytest.raises(error, match=re.escape(message)) as raised:
        nd.view(data, tmp_path / path)
    assert isinstance(raised.value, nd.NeurodynError)
    assert list(tmp_path.iterdir()) == []
