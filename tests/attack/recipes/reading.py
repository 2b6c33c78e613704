"""Calls about results: files, analysis, pictures."""

from __future__ import annotations

from tests.attack.kinds import FLAG, NATURAL, NOTHING, OBJECT, PATH, POSITIVE, TENSOR
from tests.attack.recipes.common import Recipe

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
    # pictures
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
        data=OBJECT("dataset().isel(sample=0)", wrong=["run()", "dataset()", "dataset().a", "xr.Dataset()", "net()"]),
        path=PATH(
            '"y.gif"',
            right=['Path("f/y.gif")'],
            wrong=['"x"', '"nonsense"', '"a b"', '""', 'b"x"', 'Path("x")', '"y.txt"', '".gif"'],
        ),
        along=NOTHING("None", right=['"time"'], wrong=['"space"', '"x"']),
        reference=NOTHING("None", right=["xr.Dataset()"], wrong=["dataset().a"]),
        step=(POSITIVE | NOTHING)("None"),
        seconds=POSITIVE("0.1", untried=["2.0", "1e300", "10**30", "10**400"]),
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
        "nd.view",
        data=OBJECT("run()", right=["dataset()"], wrong=["xr.Dataset()", "dataset().a", "net()"]),
        path=PATH('"y.html"', right=['"y.htm"', 'Path("f/y.html")'], wrong=['"y.png"', '""'], either=['b"x"']),
    ),
    Recipe(
        "plot.animate",
        data=OBJECT("run().isel(sample=0)", wrong=["xr.Dataset()", "dataset().a", "net()"]),
        path=PATH('"y.gif"', right=['Path("f/y.gif")'], wrong=['"y.png"', '""'], either=['b"x"', '"y.mp4"']),
        along=OBJECT("None", right=["None", '"time"'], wrong=['"nonsense"', '""', "0"]),
        reference=OBJECT("None", right=["None", "run().isel(sample=0, time=-1)"], wrong=["dataset().a", "net()"]),
        step=(POSITIVE | NOTHING)("None"),
        seconds=POSITIVE("0.1"),
        rate=NATURAL("10"),
        progress=FLAG("False"),
    ),
    Recipe(
        "plot.plot_network",
        network=OBJECT("net()", right=["net()"], wrong=["module()", "[net()]"]),
        ax=(OBJECT | NOTHING)("axes()"),
    ),
)
