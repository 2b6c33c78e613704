"""Pictures: what is drawn is what was declared, and nothing lies on top of anything else."""

from itertools import combinations, pairwise
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.path import Path
from torch import nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.network.sketch import Node, sketch
from neurodyn.view import diagram
from tests.problems import PROBLEMS

matplotlib.use("agg")


class Square(nd.Map):
    """A map of one's own."""

    def apply(self, source):
        return source.square()


def ring(size):
    names = [f"unit_{letter}" for letter in "abcdefgh"[:size]]
    couplings = [nd.Coupling(a, b, gain=1 if a <= b else -1) for a in names for b in names]
    return nd.Network("ring", [nd.Population(name, 3) for name in names], couplings)


def skips():
    layers = [nd.Population(f"x{i}", 3) for i in range(1, 6)]
    chain = [nd.Coupling(f"x{i}", f"x{i + 1}") for i in range(1, 5)]
    more = [("x1", "x3"), ("x1", "x4"), ("x2", "x5"), ("x2", "x2"), ("x3", "x4"), ("x3", "x4")]
    return nd.Network("skips", layers, chain + [nd.Coupling(a, b, Square()) for a, b in more])


def images():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 10))
    return ar.network(module)


NETWORKS = {
    "AR": lambda: ar.network(nd.mlp([64, 30, 20, 10])),
    "AR, relaxing output": lambda: ar.network(nd.mlp([64, 30, 20, 10]), output="relaxing"),
    "AR of images": images,
    "AR of 10 layers": lambda: ar.network(nd.mlp([784] + [300] * 9 + [10])),
    "PC": lambda: pc.network(nd.mlp([64, 30, 20, 10])),
    "PC of 10 layers": lambda: pc.network(nd.mlp([784] + [300] * 9 + [10])),
    "ring": lambda: ring(5),
    "skips": skips,
    "one long name": lambda: nd.Network("", [nd.Population("a_population_with_a_very_long_name", (32, 28, 28))]),
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module", params=[*PROBLEMS, *NETWORKS])
def network(request):
    return PROBLEMS[request.param]().network if request.param in PROBLEMS else NETWORKS[request.param]()


@pytest.fixture(scope="module")
def ax(network):
    """Return the axes in which it is drawn."""
    return network.plot()


def artists(ax, kind):
    """Return the artists that stand for populations, couplings or labels, by name."""
    found = [(a.get_gid(), a) for a in ax.get_children() if (a.get_gid() or "").startswith(f"{kind} ")]
    return [(gid.removeprefix(f"{kind} "), artist) for gid, artist in found]


def legend_of(ax):
    legend = ax.get_legend()
    assert legend is not None
    return legend


def legend_texts(ax):
    return [text.get_text() for text in legend_of(ax).get_texts()]


def test_it_shows_every_population_and_coupling_once_and_a_legend_of_what_occurs(network, ax):
    assert [name for name, _ in artists(ax, "population")] == [p.name for p in network.populations]
    assert [name for name, _ in artists(ax, "coupling")] == [str(c) for c in network.couplings]
    labels = "".join(name for name, _ in artists(ax, "label"))  # long names in several lines
    assert labels == "".join(p.name + "×".join(map(str, p.shape or ())) for p in network.populations)
    sign = ["negative gain"] if any(c.gain < 0 for c in network.couplings) else []
    roles = {p.role for p in network.populations}
    kinds = {"forward": "forward pass", "plasticity": "learns"}
    others = {name for kind, name in kinds.items() if artists(ax, kind)}
    assert sorted(legend_texts(ax)) == sorted(
        {type(c.map).__name__ for c in network.couplings} | roles | others | {*sign}
    )


def test_nothing_overlaps(network, ax):
    figure = ax.figure
    figure.canvas.draw()
    nodes = {name: node.get_window_extent() for name, node in artists(ax, "population")}
    for a, b in combinations(nodes, 2):
        assert not nodes[a].overlaps(nodes[b]), (a, b)
    for _, label in artists(ax, "label"):
        box = label.get_window_extent()
        assert any(node.contains(*box.min) and node.contains(*box.max) for node in nodes.values())
    centres = {name: (box.min + box.max) / 2 for name, box in nodes.items()}
    radius = {name: min(box.width, box.height) / 2 for name, box in nodes.items()}
    for coupling, (_, arrow) in zip(network.couplings, artists(ax, "coupling"), strict=True):
        lines = ax.transData.transform_path(arrow.get_path()).to_polygons(closed_only=False)
        path = np.concatenate([Path(line).interpolated(20).vertices for line in lines])
        for name in nodes.keys() - {coupling.source, coupling.target}:
            assert np.linalg.norm(path - centres[name], axis=1).min() > radius[name], (str(coupling), name)
    legend, title = legend_of(ax).get_window_extent(), ax.title.get_window_extent()
    for name, box in nodes.items():
        assert not box.overlaps(legend), name
        assert not box.overlaps(title), name
    for box in (legend, title, *nodes.values()):
        assert figure.bbox.contains(*box.min)
        assert figure.bbox.contains(*box.max)


def test_a_map_has_one_colour_and_every_map_its_own():
    a, b, tanh = nd.Population("a", 2), nd.Population("b", 2), nd.Stage(nn.Tanh())
    invertible = nd.Stage(nn.LeakyReLU())
    maps = [nd.Identity(), nd.Forward(tanh), nd.Feedback(tanh, at="b"), nd.Inverse(invertible), Square(), Square()]
    net = nd.Network("maps", [a, b], [nd.Coupling("a", "b", each) for each in maps])
    ax = net.plot()
    colours = [to_hex(arrow.get_edgecolor()) for _, arrow in artists(ax, "coupling")]
    assert colours[4] == colours[5]
    assert len(set(colours)) == 5
    lines = [to_hex(line.get_color()) for line in legend_of(ax).get_lines()]
    assert legend_texts(ax)[:5] == ["Identity", "Forward", "Feedback", "Inverse", "Square"]
    assert lines[:5] == colours[:5]


def test_shape_and_edge_tell_the_role():
    module = nd.mlp([4, 3, 2])
    nodes = dict(artists(pc.network(module).plot(), "population"))
    assert isinstance(nodes["s"], FancyBboxPatch)
    assert isinstance(nodes["x1"], Circle)
    assert nodes["x1"].get_linestyle() == "-"
    assert isinstance(nodes["e1"], Circle)
    assert nodes["e1"].get_linestyle() != "-"


def test_inhibition_ends_in_a_bar_and_excitation_in_an_arrow():
    ax = PROBLEMS["stiff pair"]().network.plot()
    heads = {name: type(arrow.get_arrowstyle()).__name__ for name, arrow in artists(ax, "coupling")}
    assert heads == {"slow → fast": "CurveFilledB", "fast → slow": "BracketB"}


@pytest.mark.parametrize("layers", [2, 10])
def test_layers_run_from_left_to_right_and_populations_of_one_kind_in_a_row(layers):
    module = nd.mlp([8] * (layers + 1))
    for net, rows in ((ar.network(module, output="relaxing"), "x"), (pc.network(module), "xe")):
        at = diagram.place(sketch(net))
        across = [at["s"][0], *(at[f"x{i}"][0] for i in range(1, layers + 1))]
        assert np.all(np.diff(across) > 2 * diagram.RADIUS)
        for kind in rows:
            assert {at[f"{kind}{i}"][1] for i in range(1, layers + 1)} == {at[f"{kind}1"][1]}
        if "e" in rows:
            assert all(at[f"x{i}"][0] == at[f"e{i}"][0] for i in range(1, layers + 1))
        else:
            assert at["error"][0] > at[f"x{layers}"][0]


def test_a_population_alone_in_its_column_keeps_to_the_row_of_its_kind():
    populations = [nd.Population(name, 1) for name in ("a1", "b1", "b2")]
    net = nd.Network("rows", populations, [nd.Coupling("a1", "b2"), nd.Coupling("b1", "b2")])
    at = diagram.place(sketch(net))
    assert at["b2"][1] == at["b1"][1] != at["a1"][1]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_network_has_room_for_its_populations_and_a_lane_for_each_coupling(data):
    names = data.draw(st.lists(st.from_regex(r"[a-c][0-9]?", fullmatch=True), min_size=1, max_size=7, unique=True))
    pair = st.tuples(st.sampled_from(names), st.sampled_from(names))
    couplings = data.draw(st.integers(1, 2)) * data.draw(st.lists(pair, max_size=8, unique=True))
    net = nd.Network("any", [nd.Population(name, 1) for name in names], [nd.Coupling(*pair) for pair in couplings])
    places = diagram.place(sketch(net))
    assert sorted(places) == sorted(names)
    for a, b in combinations(names, 2):
        assert np.linalg.norm(places[a] - places[b]) > 2.5 * diagram.RADIUS
    curves = diagram.route(sketch(net), places)
    assert len(curves) == len(couplings)
    for (one, p), (other, q) in combinations(zip(couplings, curves, strict=True), 2):
        if set(one) == set(other):
            lanes = sum(set(pair) == set(one) for pair in couplings)
            apart = np.linalg.norm(diagram.points_of(p)[12] - diagram.points_of(q)[12])
            assert apart > (0.1 if lanes == 2 else 0.05), (one, other)


def test_the_input_is_tied_in_and_what_learns_is_written_where_it_learns():
    ax = ar.network(nd.mlp([8, 6, 4, 3])).plot()
    assert [name for name, _ in artists(ax, "forward")] == ["s → x1", "x1 → x2", "x2 → x3"]
    assert [name for name, _ in artists(ax, "mark")] == ["θ1", "θ2", "θ3"]
    assert not artists(ax, "plasticity")
    late = nd.Network("late", [nd.Population("x", 1)], [nd.Coupling("x", "x", gain=-1.5, delay=2.0)]).plot()
    assert [name for name, _ in artists(late, "mark")] == ["×1.5, delay 2"]
    weak = tp.weak_feedback(nd.mlp([6, 6, 6], activation="leaky_relu"), gamma=0.5).plot()
    assert [name for name, _ in artists(weak, "plasticity")] == ["s → d1", "forward1 → d2"]
    assert [name for name, _ in artists(weak, "mark")].count("×0.25") == 2  # γ (1 − γ) and γ²


def test_many_columns_go_on_below_in_the_opposite_direction():
    module = nd.mlp([4] * 20)
    at = diagram.place(sketch(ar.network(module)))
    names = ["s", *(f"x{layer}" for layer in range(1, 20))]
    steps = np.diff([at[name] for name in names], axis=0)
    turn = int(np.argmin(steps[:, 1]))
    assert turn + 1 <= diagram.COLUMNS
    assert np.all(steps[:turn, 0] > 0)
    assert np.all(steps[turn + 1 :, 0] < 0)
    assert steps[turn, 0] == pytest.approx(0)


def test_bands_break_where_they_cut_no_skipping_connection():
    blocks = 6
    populations = [nd.Population(f"x{n}", 1) for n in range(4 * blocks)]
    couplings = [nd.Coupling(f"x{n}", f"x{n + 1}") for n in range(4 * blocks - 1)]
    couplings += [nd.Coupling(f"x{4 * n}", f"x{4 * n + 3}") for n in range(blocks)]
    ax = nd.Network("residual", populations, couplings).plot()
    row = {name: round(patch.center[1], 3) for name, patch in artists(ax, "population")}
    assert len(set(row.values())) == 2
    assert all(row[f"x{4 * n}"] == row[f"x{4 * n + 3}"] for n in range(blocks))


@pytest.mark.parametrize("length", [4, 11])
def test_a_long_arrow_keeps_as_near_to_what_it_passes_as_a_shorter_one(length):
    names = [f"x{n}" for n in range(length + 1)]
    chain = [nd.Coupling(*pair) for pair in pairwise(names)]
    skip = nd.Coupling(names[0], names[-1])
    shown = sketch(nd.Network("residual", [nd.Population(name, 1) for name in names], [*chain, skip]))
    places = diagram.place(shown)
    way = diagram.points_of(diagram.route(shown, places)[-1])
    assert abs(way[:, 1] - places["x0"][1]).max() < 2.5 * diagram.RADIUS
    between = np.array([places[name] for name in names[1:-1]])
    assert np.linalg.norm(way[:, None] - between, axis=-1).min() > diagram.RADIUS


def test_an_arrow_of_a_deep_network_is_compared_with_those_nearby_alone(monkeypatch):
    counts: list[int] = []
    points_of = diagram.points_of

    def counted(curve):
        counts[-1] += 1
        return points_of(curve)

    monkeypatch.setattr(diagram, "points_of", counted)
    for depth in (10, 20):
        shown = sketch(pc.network(nd.mlp([3] * depth)))
        counts.append(0)
        diagram.route(shown, diagram.place(shown))
    assert counts[1] < 2.5 * counts[0]


def test_marks_stand_beside_their_arrows():
    for net in (pc.network(nd.mlp([8, 6, 4, 3])), ar.network(nd.mlp([8, 6, 4, 3]))):
        shown = sketch(net)
        places = diagram.place(shown)
        curves = diagram.route(shown, places)
        marks = diagram.mark_places(shown, places, curves)
        lines = np.concatenate([diagram.points_of(curve) for curve in curves])
        for arrow, mark in zip(shown.arrows, marks, strict=True):
            if mark is not None:
                assert (abs(lines - mark) > diagram.mark_half(arrow.mark)).any(1).all(), str(arrow)


def test_marks_keep_apart_and_inside_the_picture():
    both = [nd.Coupling("a", "b", gain=3.5, delay=1.25), nd.Coupling("b", "a", gain=-12.5, delay=0.75)]
    loop = nd.Coupling("b", "b", gain=0.125, delay=33.5)
    ax = nd.Network("marks", [nd.Population("a", 1), nd.Population("b", 1)], [*both, loop]).plot()
    boxes = [mark.get_path().get_extents() for _, mark in artists(ax, "mark")]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert all(left <= box.x0 and box.x1 <= right and bottom <= box.y0 and box.y1 <= top for box in boxes)


def test_a_name_is_no_formula():
    axes = nd.Network("costs $5, or \\frac$", [nd.Population("x", 1)]).plot()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    assert axes.get_title() == "costs $5, or \\frac$"


def test_a_long_name_is_broken_where_one_line_would_be_too_small_to_read():
    long, short = "scaled_dot_product_attention_1", "relu_1"
    ax = nd.Network("names", [nd.Population(long, 1), nd.Population(short)]).plot()
    lines = [(text, patch.get_path().get_extents()) for text, patch in artists(ax, "label")]
    *broken, _, (last, _) = lines
    assert last == short
    assert len(broken) > 1
    assert "".join(text for text, _ in broken) == long
    assert all(above.y0 > below.y0 for (_, above), (_, below) in pairwise(broken))


@pytest.mark.parametrize("name", ["x", "group_norm_1", "scaled_dot_product_attention_1"])
def test_the_texts_of_a_population_stand_below_each_other_inside_its_node(name):
    texts = diagram.texts_of(Node(name, "4×8×8", "dynamic", input=False))
    assert "".join(text for text, _, _ in texts) == f"{name}4×8×8"
    for (_, upper, high), (_, lower, low) in pairwise(texts):
        assert upper - lower > 0.36 * (high + low)  # capitals are 0.72 of a letter's height
    assert all(abs(place) + 0.36 * height < diagram.RADIUS for _, place, height in texts)


def test_opposite_ways_between_two_populations_keep_apart():
    shown = sketch(ar.network(nd.mlp([8, 6, 4, 3])))
    places = diagram.place(shown)
    for arrow, curve in zip(shown.arrows, diagram.route(shown, places), strict=True):
        above = diagram.points_of(curve)[12, 1] - places["s"][1]
        if "s" not in (arrow.source, arrow.target):
            assert (above > 0) == (arrow.kind == "forward"), str(arrow)


def test_it_draws_in_the_axes_it_is_given():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    net = pc.network(nd.mlp([4, 3, 2]))
    assert net.plot(right) is right
    figure.canvas.draw()
    legend = legend_of(right).get_window_extent()
    for _, node in artists(right, "population"):
        box = node.get_window_extent()
        assert not box.overlaps(legend)
        assert box.x0 > left.get_window_extent().x1
    assert not artists(left, "population")


def test_style_ends_with_its_block():
    before = matplotlib.rcParams["axes.spines.top"]
    with plot.style():
        assert matplotlib.rcParams["figure.constrained_layout.use"]
        assert not matplotlib.rcParams["axes.spines.top"]
    assert matplotlib.rcParams["axes.spines.top"] == before


def test_a_figure_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new folder" / "figure.png"
    figure, ax = plt.subplots()
    assert plot.save_figure(figure, path) == path
    first = path.read_bytes()
    assert plt.imread(path).ndim == 3
    ax.set_title("$\\unknown$")
    with pytest.raises(ValueError, match="unknown"):
        plot.save_figure(figure, path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a & <b>", "κ"])
def test_a_notebook_shows_the_diagram_and_the_equations_of_any_name(name):
    network = nd.Network(
        name, [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", 2)], [nd.Coupling("s", "x")]
    )
    shown = plt.get_fignums()
    page = ElementTree.fromstring(network._repr_html_())
    assert plt.get_fignums() == shown
    assert page.find("{http://www.w3.org/2000/svg}svg") is not None
    text = page.findtext("pre") or ""
    assert repr(network) in text
    assert network.equations() in text
