"""Calls about results: files, analysis, pictures."""

from __future__ import annotations

from tests.attack.kinds import FLAG, FUNCTION, NATURAL, NOTHING, OBJECT, PATH, POSITIVE, REAL, TENSOR
from tests.attack.recipes.common import INITIAL, INPUTS, NO_TARGETS, SOLVERS, Recipe

_ONE = TENSOR("x(1)", right=['{"s": x(1)}'], wrong=["x()", "torch.zeros(4, 3)", "x(1, 2)"])
_START = OBJECT(
    "None",
    right=["None", "{}", '{"a": torch.zeros(3)}'],
    either=["xr.Dataset()"],
    wrong=['{"a": x(5)}', '{"s": x()}'],
)

READING = (
    # files
    Recipe(
        "nd.save",
        data=OBJECT("dataset()", right=["xr.Dataset()", "run()"], wrong=['saved("y.nc")', "dataset().a"]),
        path=PATH(
            '"y.nc"',
            right=['"y.zarr"', 'Path("f/y.nc")'],
            wrong=['"x"', '"nonsense"', '"a b"', '""', 'b"x"', 'Path("x")', '".nc"', '"y.txt"'],
        ),
    ),
    Recipe(
        "nd.load",
        "{}.load()",
        path=PATH(
            'saved("y.nc")',
            right=['saved("y.zarr")'],
            wrong=['"x"', '"nonsense"', '"a b"', '""', 'b"x"', 'Path("x")', '"missing.nc"', '"missing.zarr"', '"."'],
        ),
    ),
    # analysis
    Recipe(
        "nd.analysis.backprop",
        network=OBJECT("ar_net()", right=[], wrong=["net()", "[ar_net()]", "module()"]),
        inputs=TENSOR("x()", right=["torch.zeros(4, 3, requires_grad=True)"], wrong=["x(5)", "x(4, 2)", "x() / 0"]),
        targets=OBJECT("t()", wrong=["t(5)", "t(4, 3)", "t().long()", "t() / 0"]),
    ),
    Recipe(
        "nd.analysis.squared_distance",
        trajectory=OBJECT("dataset()", wrong=["run()", "dataset().a"]),
        reference=OBJECT("dataset().isel(time=-1)", wrong=["run()", "dataset().a"]),
    ),
    Recipe(
        "nd.analysis.spikes",
        errors=OBJECT(
            "run()",
            right=['run()[["e1"]]', "run().e1"],
            wrong=["dataset()", "run().isel(time=0)", "run().e1.isel(time=[0, 2, 3])"],
        ),
        window=NATURAL("2"),
        step=NOTHING("None", right=["1", "1.0"], wrong=["2", "0", "-1.0"], either=["True"]),
    ),
    Recipe(
        "nd.analysis.jacobian",
        network=OBJECT("net()", right=["loop()"], wrong=["[net()]", "module()"]),
        inputs=INPUTS,
        targets=NO_TARGETS,
        at=INITIAL,
    ),
    Recipe(
        "nd.analysis.stability",
        network=OBJECT("net()", right=["loop()"], wrong=["[net()]", "module()"]),
        inputs=INPUTS,
        targets=NO_TARGETS,
        at=OBJECT(
            "None",
            right=["None"],
            either=[*INITIAL.right, *INITIAL.either],
            wrong=['{"a": x(5)}', '{"s": x()}', '{"a": "x"}'],
        ),
        count=(NATURAL | NOTHING)("None"),
    ),
    Recipe(
        "nd.analysis.continuation",
        declare=FUNCTION("linked", wrong=["net()", "lambda gain: None", "len", "print", "int", "lambda: 0"]),
        start=REAL(
            "0.5", either=["0", "0.0", "0.2", "-0.5", "-1", "np.int64(-1)"], untried=["10**30", "1e300", "1e-300"]
        ),
        stop=REAL(
            "0.7",
            either=["0", "0.0", "-0.5", "-1", "np.int64(-1)", "0.5", "np.float32(0.5)"],
            untried=["10**30", "1e300", "1e-300"],
        ),
        inputs=_ONE,
        targets=NO_TARGETS,
        initial=_START,
        step=POSITIVE("0.05", untried=["1e-300"], either=["10**30", "1e300"]),
        most=NATURAL("20", either=["1", "2", "np.int64(2)", "np.uint8(2)"]),
        progress=FLAG("None"),
    ),
    Recipe(
        "nd.analysis.lyapunov",
        network=OBJECT("net()", right=["loop()"], wrong=["[net()]", "module()"]),
        inputs=INPUTS,
        targets=NO_TARGETS,
        duration=POSITIVE("2.0", untried=["10**30", "1e300"]),
        count=NATURAL("1"),
        transient=POSITIVE("0.0", right=["0", "0.0"], untried=["10**30", "1e300"]),
        interval=POSITIVE("0.5", untried=["1e-300"], either=["10**30", "1e300"]),
        solver=(OBJECT | NOTHING)(
            "nd.RK4(0.1)", right=["nd.Euler(0.1)", "nd.Adaptive()"], either=[*SOLVERS], wrong=["nd.RK4", '"rk4"', "0.1"]
        ),
        initial=INITIAL,
        progress=FLAG("None"),
    ),
    # pictures
    Recipe(
        "plot.phase_plane",
        network=OBJECT("net()", right=["loop()"], wrong=["[net()]", "module()"]),
        x=OBJECT('("a", 0)', right=['("a", 2)'], wrong=['("a", 9)', '("y", 0)', '"a"', "0"]),
        y=OBJECT('("a", 1)', right=['("a", 2)'], wrong=['("a", 9)', '("y", 0)', '"a"', '("a", 0)']),
        x_span=OBJECT("(-1.0, 1.0)", right=["[0, 1]", "(1, 2)"], wrong=["(1.0, -1.0)", "(0, 0)", "(1,)", "1.0"]),
        y_span=OBJECT("(-1.0, 1.0)", right=["[0, 1]", "(1, 2)"], wrong=["(1.0, -1.0)", "(0, 0)", "(1,)", "1.0"]),
        inputs=_ONE,
        targets=NO_TARGETS,
        at=_START,
        points=NATURAL("5", wrong=["1"], untried=["10**30", "10**400"]),
        ax=(OBJECT | NOTHING)("axes()"),
    ),
    Recipe(
        "nd.view",
        data=OBJECT("dataset()", right=["run()", "dataset()"], wrong=["dataset().a", "xr.Dataset()", "net()"]),
        path=PATH(
            '"y.html"',
            right=['"f/y.html"', 'Path("y.htm")'],
            wrong=['"x"', '"nonsense"', '"a b"', '""', 'b"x"', 'Path("x")', '"y.txt"', '".html"'],
        ),
    ),
    Recipe(
        "plot.animate",
        data=OBJECT("dataset().isel(sample=0)", right=["dataset()"], wrong=["dataset().a", "xr.Dataset()", "net()"]),
        path=PATH(
            '"y.gif"',
            right=['Path("f/y.gif")'],
            wrong=['"x"', '"nonsense"', '"a b"', '""', 'b"x"', 'Path("x")', '"y.txt"', '".gif"'],
        ),
        along=NOTHING("None", right=['"time"'], wrong=['"space"', '"x"']),
        reference=NOTHING("None", right=["dataset().isel(time=-1, sample=0)"], wrong=["dataset().a"]),
        step=(POSITIVE | NOTHING)("None"),
        seconds=POSITIVE("0.1", untried=["2.0"]),
        rate=NATURAL("10", untried=["10**30", "10**400"]),
        progress=(FLAG | NOTHING)("False"),
    ),
    Recipe("plot.style"),
    Recipe(
        "plot.save_figure",
        figure=OBJECT("axes().figure", wrong=["axes()"]),
        path=PATH('"y.png"', right=['"y.pdf"', 'Path("f/y.png")'], wrong=['"y.txt"', '""'], either=['b"x"']),
    ),
    Recipe(
        "plot.plot_network",
        network=OBJECT("net()", right=["net()"], wrong=["module()", "[net()]"]),
        ax=(OBJECT | NOTHING)("axes()"),
    ),
)
