"""Calls that run a network: simulate, equilibrium, backward, sweep."""

from __future__ import annotations

from tests.attack.kinds import CHOICE, COUNT, FLAG, FUNCTION, NATURAL, NOTHING, OBJECT, PATH, POSITIVE, TENSOR
from tests.attack.recipes.common import INITIAL, INPUTS, NO_TARGETS, SOLVERS, Recipe

_NETWORK = OBJECT("net()", right=["net()", "[net(), net()]"], wrong=["[net(), loop()]", "[net(), 1]", "module()"])
_SAVE_AT = OBJECT(
    "None",
    right=[
        "None",
        "2",
        "np.int64(2)",
        "np.uint8(2)",
        '"steps"',
        "np.array([0.5, 1.0])",
        "torch.tensor([0.5, 1.0])",
        "[0.5]",
    ],
    either=["[1]", "range(3)", "10**30", "10**400", "xr.DataArray([1.0])"],
    wrong=["[1.0, 0.5]", "[0.5, 0.5]", "[-0.5, 0.5]", "[0.5, 99.0]", "[[0.5],]", "[True]", "0.1"],
    untried=["10**30", "10**400"],
)
_RECORD = OBJECT(
    "None",
    right=["None", '["a"]', '"a"', '("a", "s")'],
    either=["{}", '{"x": 1}'],
    wrong=['["a", "nonsense"]', "[None]", '[["a"]]'],
)
_DURATION = POSITIVE("1.0", untried=["10**30", "1e300"])


_NEVER = (
    "lambda: 0",
    "lambda *_: None",
    "len",
    "print",
    "int",
    "open",
    "nd.Euler",
    "nd.Input",
    "nd.Network",
    "nd.steady",
    "nn.Tanh",
)
"""Functions of the pool that give nothing that a run could use."""
_NO_STORES = ('"x"', '"nonsense"', '"a b"', 'Path("x")', '""', 'b"x"')
"""Paths of the pool that are no Zarr stores."""

RUNNING = (
    # running
    Recipe(
        "nd.simulate",
        network=_NETWORK,
        inputs=INPUTS,
        targets=NO_TARGETS,
        duration=_DURATION,
        solver=(OBJECT | NOTHING)(
            "None", right=["nd.Euler(0.1)", "nd.Exact()", *SOLVERS], wrong=["nd.RK4", '"rk4"', "nd.Exact", "0.1"]
        ),
        save_at=_SAVE_AT,
        record=OBJECT(
            "None",
            right=["None", '["a"]', '"a"', '{"a": [0, 2]}', '{"a": None, "s": (1,)}'],
            either=["{}", '{"x": 1}'],
            wrong=['["a", "nonsense"]', "[None]", '[["a"]]', '{"a": [9]}', '{"a": [-1]}', '{"a": [0, 0]}', '{"a": []}'],
        ),
        reduce=OBJECT(
            "None",
            right=["None", '{"a": "mean"}', '{"a": "std"}', "{}"],
            either=['{"x": 1}', "xr.Dataset()"],  # an empty mapping, too
            wrong=['{"a": "median"}', '{"b": "mean"}', '{"a": len}', '"mean"', '["a"]'],
        ),
        store=NOTHING("None", either=["..."]),
        initial=INITIAL,
        until=(FUNCTION | NOTHING)(
            "None", right=["nd.steady(1e-3)"], either=["lambda *_: None", "print", "int"], wrong=["1e-3", "nd.steady"]
        ),
        progress=FLAG("False"),
        seed=(COUNT | NOTHING)("0", right=["[1, 2, 3, 4]"], either=["range(3)"]),
    ),
    Recipe(
        "nd.simulate",
        network=OBJECT(
            "pc_net()", wrong=["pc_net(steps=3)", "pc_net(step=0.1)", "pc_net", "module()"], either=["net()"]
        ),
        inputs=TENSOR("x()", wrong=["torch.zeros(4, 3, requires_grad=True)", "x(5)", "x(4, 2)", "None"]),
        targets=NOTHING(
            "t()", wrong=["t().requires_grad_()", "t(5)", "t(4, 3)", "t()[:, 0]", "t().double()", "t() / 0"]
        ),
        duration=_DURATION,
        solver=(OBJECT | NOTHING)("None", right=["nd.Euler(0.1)", *SOLVERS], wrong=["nd.Exact()"]),
        record=OBJECT("None", right=["None", '["energy"]', '["x1", "e2"]'], either=["{}"], wrong=['"x3"']),
        initial=OBJECT("None", right=["None", "{}", '{"x1": x(4, 5)}'], wrong=['{"e1": x(4, 5)}', '{"x2": t()}']),
    ),
    Recipe(
        "nd.simulate",
        network=OBJECT("loop()", either=["net()", "[loop(), loop()]"], wrong=["loop"]),
        inputs=INPUTS,
        duration=POSITIVE("1.0", untried=["1e300"], either=["10**30"]),  # until= may end it
        solver=OBJECT("nd.Euler(0.1)", right=[*SOLVERS[:4]], wrong=["nd.TorchDiffEq()", "nd.Exact()"], either=["None"]),
        save_at=OBJECT(
            '"steps"',
            right=["None", "2", "np.int64(2)", "np.uint8(2)"],
            untried=["10**30", "10**400"],
            either=[
                "np.array([0.5, 1.0])",
                "[1]",
                "range(3)",
                "torch.tensor([0.5])",
                "xr.DataArray([1.0])",
            ],
        ),
        store=(PATH | NOTHING)(
            'fresh("zarr")',
            wrong=['"own.nc"', *_NO_STORES],
        ),
        resume=FLAG("False"),
        until=OBJECT(
            "nd.steady(1e-3)",
            either=[
                "None",
                "lambda *_: None",
                "print",
                "int",
                "lambda: 0",
                "len",
            ],
        ),
    ),
    Recipe(
        "nd.equilibrium",
        network=_NETWORK,
        inputs=INPUTS,
        targets=NO_TARGETS,
        record=_RECORD,
        initial=INITIAL,
        tolerance=(POSITIVE | NOTHING)("1e-3"),
        max_duration=POSITIVE("10.0"),
        progress=FLAG("None"),
    ),
    Recipe(
        "nd.infer",
        network=OBJECT("pc_net()", wrong=["pc_net", "module()", "[pc_net()]", "ar_net()"]),
        inputs=TENSOR("x()", right=['{"s": x()}'], wrong=["x(5)", "x(4, 2)", "None", "x() / 0"]),
        targets=NOTHING("t()", wrong=["t(5)", "t(4, 3)", "t()[:, 0]", "t().double()", "t() / 0"]),
        record=OBJECT("None", right=["None", '["energy"]', '["x1", "e2"]'], either=["{}"], wrong=['"x3"']),
        progress=FLAG("None"),
    ),
    Recipe(
        "nd.activity",
        network=OBJECT("net()", right=["loop()"], wrong=["[net()]", "module()"]),
        inputs=INPUTS,
        targets=NO_TARGETS,
        duration=POSITIVE("0.5", untried=["10**30", "1e300"]),
        save_at=OBJECT(
            "None",
            right=[
                "None",
                "2",
                "np.int64(2)",
                "np.uint8(2)",
                "np.array([0.25, 0.5])",
                "torch.tensor([0.5])",
                '"steps"',
            ],
            either=["[1]", "range(3)", "10**30", "10**400", "xr.DataArray([1.0])"],
            wrong=["[0.5, 0.25]", "[-0.5]", "[99.0]", "[True]", "0.1"],
            untried=["10**30", "10**400"],
        ),
        solver=(OBJECT | NOTHING)(
            "nd.Heun(0.1)",
            right=["nd.Euler(0.1)", "nd.RK4(0.1)", "nd.Adaptive()"],
            either=["nd.Stabilized()", "nd.TorchDiffEq()", "nd.Exact()"],
            wrong=["nd.RK4", '"rk4"', "0.1"],
        ),
        adjoint=CHOICE('"direct"', right=['"checkpointed"'], either=['"backsolve"'], wrong=["None", '"adjoint"']),
        initial=INITIAL,
        seed=(COUNT | NOTHING)("None", either=["[1, 2, 3, 4]", "range(3)"]),
    ),
    Recipe(
        "nd.System",
        network=OBJECT("net()", right=["net()"], wrong=["[net()]", "module()"]),
        inputs=INPUTS,
        targets=NO_TARGETS,
        initial=INITIAL,
    ),
    Recipe(
        "nd.backward",
        network=OBJECT("ar_net()", either=["pc_net()"], wrong=["module()", "[ar_net()]"]),
        inputs=TENSOR(
            "x()",
            right=['{"s": x()}'],
            wrong=[
                "x(5)",
                "x(4, 2)",
                "x() / 0",
                "pair()",
                "TensorDataset(*pair())",
            ],
        ),
        targets=OBJECT(
            "t()",
            wrong=[
                "t(5)",
                "t(4, 3)",
                "t()[:, 0]",
                "t().long()",
                "t() / 0",
                "None",
                '["a"] * 4',
            ],
        ),
        duration=(POSITIVE | NOTHING)("5.0", untried=["10**30", "1e300"], wrong=["None"]),
        solver=(OBJECT | NOTHING)(
            "nd.Euler(0.1)",
            right=["nd.Exact()", *SOLVERS[:4]],
            either=["nd.TorchDiffEq()"],
            wrong=["nd.Euler", '"rk4"'],
        ),
        progress=FLAG("None"),
    ),
    Recipe(
        "nd.sweep",
        point=FUNCTION(
            "squares",
            wrong=[
                "lambda a: a",
                "lambda a: None",
                "lambda: 0",
                "lambda b: {}",
                "lambda *_: None",
                "len",
                "print",
                "int",
            ],
        ),
        grid=OBJECT(
            '{"a": [1, 2]}',
            right=['{"a": (1, 2), "b": [0.5]}', '{"a": np.array([1.0, 2.0])}'],
            either=[
                '{"a": torch.tensor([1.0, 2.0])}',
                '{"a": range(3)}',
                '{"a": {1, 2}}',
                '{"a": "x"}',
            ],
            wrong=[
                '{"a": []}',
                '{"a": 1}',
                '{"a": None}',
                '{"a": [1, 1]}',
                '{"a": [1, "1"]}',
                '{"a": [None, 1]}',
                '{"a": [[1], [2],]}',
                '{"y": [1, 2]}',
                '{"nonsense": [1]}',
                "{1: [1]}",
                '{"a": [float("nan"), 1.0]}',
                '{"a": [1, 1.0]}',
            ],
        ),
        at_once=NOTHING("None", right=["True"], either=["..."]),
        scheduler=(CHOICE | NOTHING)(
            "None",
            right=['"synchronous"', '"threads"'],
            untried=['"processes"'],
        ),
        progress=FLAG("False"),
        store=(PATH | NOTHING)(
            "None", right=['fresh("zarr")'], wrong=['fresh("nc")', 'saved("other.zarr")', *_NO_STORES]
        ),
        block=(NATURAL | NOTHING)("None"),
        on_error=CHOICE('"raise"', right=['"record"'], wrong=['"ignore"']),
        share=NOTHING("None", wrong=["(0, 1)", "(0, 0)"]),
    ),
    Recipe(
        "nd.sweep",
        point=FUNCTION("squares"),
        grid=OBJECT('{"a": [1, 2]}'),
        store=PATH('fresh("zarr")', wrong=_NO_STORES),
        share=(OBJECT | NOTHING)(
            "(0, 2)", right=["(1, 2)", "(np.int64(0), 1)", "[0, 1]"], wrong=["(2, 2)", "(-1, 2)", "(0, 0)"]
        ),
    ),
    Recipe(
        "nd.sweep",
        point=FUNCTION(
            "linked",
            wrong=[
                "squares",
                "lambda gain: 1",
                "lambda: 0",
                "len",
                "print",
                "int",
                "lambda *_: None",
                "nd.Euler",
                "nn.Tanh",
                "nd.Input",
                "nd.Network",
                "nd.steady",
            ],
        ),
        grid=OBJECT(
            '{"gain": [1.0, 2.0]}',
            wrong=[
                '{"gain": []}',
                '{"gain": [0.0]}',
                '{"gain": [None]}',
                '{"network": [1]}',
            ],
        ),
        at_once=FUNCTION(
            "lambda nets: nd.simulate(nets, x(), duration=1.0)",
            wrong=[
                "lambda nets: 1",
                "lambda nets: dataset()",
                "lambda: 0",
                "lambda *_: None",
                "len",
                "print",
                "int",
                "nd.Euler",
                "nn.Tanh",
                "nd.Input",
                "nd.Network",
                "nd.steady",
            ],
        ),
        scheduler=(CHOICE | NOTHING)("None", right=['"threads"', '"synchronous"']),
        progress=FLAG("False"),
    ),
    # what a user writes
    Recipe(
        "with_map",
        apply=FUNCTION(
            "lambda v: 2 * v",
            right=["torch.tanh", "lambda v: v"],
            wrong=[
                *_NEVER,
                "lambda v: v[:, :1]",
                "lambda v: v[:1]",
                "lambda v: v.sum()",
                "lambda v: v.double()",
                "lambda v: v / 0",
                "lambda v: v.numpy()",
                "lambda v: (v,)",
                "lambda v: v.mul_(2)",
                "lambda v: v > 0",
                "lambda v: v - v.mean(0)",
                "lambda v: v + torch.randn_like(v)",
                'lambda v: v.to("meta")',
            ],
        ),
    ),
    Recipe(
        "with_linear_map",
        apply=FUNCTION(
            "lambda v: 2 * v",
            right=["lambda v: v + 1"],
            either=["nn.functional.relu"],
            wrong=[*_NEVER, "torch.sin", "torch.abs", "lambda v: v * v"],
        ),
    ),
    Recipe(
        "with_drive",
        value=FUNCTION(
            'lambda population, data: data.inputs["s"] + 1',
            wrong=[
                *_NEVER,
                "lambda population, data: None",
                "lambda population, data: 1.0",
                "lambda population, data: x(5)",
                "lambda population, data: x(4, 2)",
                "lambda population, data: x() / 0",
                "lambda population, data: x().double()",
                "lambda population, data: x().numpy()",
                "lambda population, data: x().long()",
            ],
        ),
    ),
    Recipe(
        "with_observable",
        value=FUNCTION(
            'lambda activity: activity["a"].sum(1)',
            wrong=[
                *_NEVER,
                "lambda activity: 12.0",
                'lambda activity: activity["a"]',
                'lambda activity: activity["a"].sum()',
                'lambda activity: activity["b"].sum(1)',
                "lambda activity: None",
                'lambda activity: activity["a"].sum(1)[:2]',
                'lambda activity: activity["a"].sum(1, keepdim=True)',
                'lambda activity: activity["a"].sum(1).numpy()',
            ],
        ),
    ),
    Recipe(
        "with_loss",
        loss=FUNCTION(
            "lambda y, t: (y - t).square().sum(1)",
            wrong=[
                *_NEVER,
                "nn.MSELoss()",
                "nn.functional.mse_loss",
                "lambda y, t: 0.0",
                "lambda y, t: (y - t).square()",
                "lambda y, t: None",
                "lambda y, t: t.square().sum(1)",
                "lambda y, t: (y - t).square().sum(1).numpy()",
                "lambda y, t: (y - t).square().sum(1) / 0",
            ],
        ),
    ),
    Recipe(
        "with_until",
        until=FUNCTION(
            "lambda time, activity, velocity: time > 0.5",
            right=["lambda time, activity, velocity: False"],
            wrong=[
                "lambda: 0",
                "len",
                "nd.Euler",
                "nd.Network",
                'lambda time, activity, velocity: "x"',
                'lambda time, activity, velocity: velocity["a"]',
            ],
            either=[
                "None",
                "lambda *_: None",
                "print",
                "int",
                "nd.Input",
                "nn.Tanh",
                "nd.steady",
            ],
        ),
    ),
    Recipe(
        "with_module",
        module=OBJECT(
            "nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))",
            right=[
                "nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5).eval())",
                "nn.Sequential(nn.Linear(3, 2), nn.Softmax(1))",
                "hooked(nn.Linear(3, 2))",
            ],
            either=["nn.Tanh()"],
            wrong=[
                "nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))",
                "nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))",
                "nn.Linear(4, 2)",
                "nn.Linear(3, 2).double()",
                'nn.Linear(3, 2).to("meta")',
                "nn.LSTM(3, 2)",
                "nn.LazyLinear(2)",
                "nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 2))",
                "poisoned(nn.Linear(3, 2))",
                "nn.Sequential(nn.Linear(3, 2), nn.Softmax(0))",
            ],
        ),
    ),
)
