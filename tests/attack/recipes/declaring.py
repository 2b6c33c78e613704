"""Calls that declare a network: solvers, drives, stages, maps, populations and what ties them together."""

from __future__ import annotations

from tests.attack.kinds import (
    ANY,
    CHOICE,
    COUNT,
    FLAG,
    FUNCTION,
    IDENTIFIER,
    INTEGER,
    NATURAL,
    NOTHING,
    OBJECT,
    POSITIVE,
    REAL,
    TENSOR,
    TEXT,
)
from tests.attack.recipes.common import DEVICE, DTYPE, MODULE, OWN_STAGE, SEED, SIZES, Recipe

_STAGE_OR_MODULE = OBJECT("stage()", right=["stage()", "nn.Tanh()"])
_INVERTIBLE = OBJECT("linear()", right=["stage()", "nn.Tanh()"], wrong=["nn.ReLU()", "nn.Linear(3, 2)", "nn.GELU()"])
_SCALE = POSITIVE("0.5", right=["(0.5, 2.0)"], either=["(1, 2)"], wrong=["(0.5, -1.0)", '(0.5, "x")'])
_FIXED = {"step": POSITIVE("0.1"), "compile": FLAG("False")}
_TOLERANCES = {"rtol": POSITIVE("1e-3"), "atol": POSITIVE("1e-4")}

_EMPTY = ("{}", '""', "torch.zeros(0)", "torch.zeros(0, 3)", "xr.Dataset()")
"""What holds nothing."""

DECLARING = (
    # solvers
    Recipe("nd.Euler", **_FIXED),
    Recipe("nd.Heun", **_FIXED),
    Recipe("nd.RK4", **_FIXED),
    Recipe(
        "nd.Adaptive",
        method=CHOICE('"bosh3"', right=['"dopri5"', '"tsit5"', '"heun_euler"'], wrong=['"Dopri5"', '"rk4"']),
        **_TOLERANCES,
    ),
    Recipe("nd.Sliding", **_TOLERANCES),
    Recipe("nd.Stabilized", **_TOLERANCES),
    Recipe("nd.FixedStep", tableau=OBJECT("midpoint()", wrong=["nd.Tableau"]), **_FIXED),
    Recipe(
        "nd.Tableau",
        order=NATURAL("2", right=["1"], wrong=["3", "10**30"]),
        a=OBJECT(
            "((), (0.5,))", wrong=["((0.5,), ())", "((),)", '((), ("x",))', "((), (True,))", '((), (float("nan"),))']
        ),
        b=OBJECT("(0.0, 1.0)", wrong=["(1.0,)", "(0.0, 1.0, 0.0)", "(0.5, 0.5)", '("x", 1.0)', '(float("nan"), 1.0)']),
    ),
    Recipe(
        "nd.Pair",
        order=NATURAL("1", wrong=["2", "3", "10**30", "np.int64(2)", "np.uint8(2)"]),
        a=OBJECT("((), (1.0,))", wrong=["((), (0.5,))", "((),)"]),
        b=OBJECT("(1.0, 0.0)", wrong=["(0.5, 0.5)", "(1.0,)"]),
        error=OBJECT("(0.5, -0.5)", wrong=["(0.5, 0.5)", "(0.5,)", '("x", 0.5)']),
        interpolant=(OBJECT | NOTHING)("None", wrong=["((1.0,),)", "(1.0, 0.0)"]),
    ),
    Recipe("nd.Exact", euler_step=(POSITIVE | NOTHING)("None")),
    Recipe("nd.TorchDiffEq", method=CHOICE('"bosh3"', right=['"dopri5"', '"euler"'], wrong=['"rk5"']), **_TOLERANCES),
    Recipe(
        "nd.kernels",
        library=CHOICE('"torch"', either=['"onednn"'], wrong=['"mkl"', '"onednn, torch"']),
    ),
    Recipe("nd.tune"),
    Recipe("nd.steady", tolerance=(POSITIVE | NOTHING)("1e-3")),
    # timing
    Recipe("nd.Inference", step=POSITIVE("0.1"), steps=COUNT("3"), by_default=FLAG("False")),
    Recipe("nd.AtStep", step=COUNT("1")),
    Recipe("nd.OnSpike", window=NATURAL("1"), moved_by=(IDENTIFIER | NOTHING)("None", either=['""', '"a b"'])),
    # drives
    Recipe("nd.Input", integer=FLAG("False")),
    Recipe("nd.Target", optional=FLAG("False")),
    Recipe("nd.LossGradient"),
    Recipe("nd.Data", inputs=ANY("{}"), targets=ANY("None"), forward=ANY("None"), loss=ANY("len")),
    Recipe("nd.ForwardValue", stage=OWN_STAGE),
    Recipe(
        "nd.Constant",
        value=REAL(
            "1.0",
            right=[
                "torch.zeros(4, 3)",
                "torch.zeros(5, 7)",
                "torch.zeros(4, 3, 1, 2)",
                "torch.zeros(4, 3, dtype=torch.float64)",
            ],
        ),
    ),
    Recipe(
        "nd.Signal",
        times=OBJECT(
            "[0.0, 1.0]",
            right=["(1, 2)", "np.array([0.5, 1.0])", "torch.tensor([0.5, 1.0])"],
            wrong=["[1.0, 0.0]", "[0.0, 0.0]", '[0.0, float("nan")]', "[0.0, 1.0, 2.0]", "[[0.0, 1.0]]"],
        ),
        values=OBJECT(
            "[0.0, 1.0]",
            right=["(1, 2)", "np.array([0.5, 1.0])", "torch.zeros(2, 3)", "[[0.0, 1.0], [1.0, 0.0]]"],
            wrong=["[0.0]", '[0.0, float("inf")]', '["x", "y"]', "torch.zeros(2, dtype=torch.int64)"],
        ),
        interpolation=CHOICE('"linear"', right=['"previous"', '"cubic"'], wrong=['"nearest"', '"Linear"']),
    ),
    Recipe("nd.Noisy", drive=OBJECT("nd.Target()", right=["nd.Input()"]), sigma=POSITIVE("0.1")),
    # stages and maps
    Recipe(
        "nd.Stage",
        layers=OBJECT(
            "[linear(), nn.Tanh()]",
            right=["nn.Tanh()", "linear()"],
            wrong=[
                "[nn.Tanh]",
                "[linear(), None]",
                "[nn.LSTM(3, 3)]",
                "nn.BatchNorm1d(3)",
                "nn.Dropout(0.5)",
                "stage()",
            ],
        ),
        name=(TEXT | NOTHING)('"1"'),
    ),
    Recipe(
        "nd.SparseLinear",
        weight=TENSOR(
            "torch.eye(3)",
            right=[
                "torch.eye(3).to_sparse_csr()",
                "torch.eye(3).to_sparse()",
                "torch.zeros(4, 3, dtype=torch.float64)",
            ],
            either=["torch.zeros(0, 3)", "torch.zeros(5, 7)"],
            wrong=["torch.eye(3) / 0", "torch.zeros(3)"],
        ),
        bias=NOTHING("None", right=["torch.zeros(3)"], wrong=["torch.zeros(2)", "torch.zeros(3).double()"]),
    ),
    Recipe("nd.FirstUnits", units=NATURAL("2")),
    Recipe("nd.Identity"),
    Recipe("nd.Forward", stage=_STAGE_OR_MODULE),
    Recipe("nd.Inverse", stage=_INVERTIBLE),
    Recipe("nd.ForwardDeviation", stage=_INVERTIBLE, scale=_SCALE),
    Recipe("nd.InverseDeviation", stage=_INVERTIBLE, scale=_SCALE),
    Recipe(
        "nd.Feedback",
        stage=_STAGE_OR_MODULE,
        point=(CHOICE | NOTHING)('"live"', right=['"frozen"'], wrong=['"dead"']),
        weights=(OBJECT | NOTHING)("None", wrong=["fb()", "fb", "nd.FeedbackWeights"]),
        derivative=FLAG("True"),
        argument=COUNT(
            "0", either=["False", "np.bool_(True)"], wrong=["1", "2", "np.int64(2)", "np.uint8(2)", "10**30"]
        ),
        at=(TEXT | NOTHING)("None", right=['"a"']),
    ),
    Recipe(
        "nd.Pointwise",
        function=OBJECT(
            "torch.mul",
            right=["torch.tanh", "lambda u, x: u * x"],
            either=[
                "len",
                "print",
                "int",
                "lambda: 0",
                "lambda *_: None",
                "nd.Euler",
                "nd.Input",
                "nd.Network",
                "nd.steady",
            ],
            wrong=["nn.Tanh", "nn.Tanh()", "stage()"],
        ),
        text=(TEXT | NOTHING)("None", right=['"{} · {}"']),
    ),
    Recipe("nd.FeedbackWeights", stage=OWN_STAGE, seed=SEED, learned=FLAG("True"), sigma=POSITIVE("0.05")),
    Recipe(
        "nd.Modulated",
        map=OBJECT("nd.Identity()", right=["nd.Identity()", "Doubled()"], wrong=["Doubled"]),
        stage=OBJECT("stage()", right=["stage()"], wrong=["nd.Stage([linear(), nn.Softmax(1)])"]),
        power=INTEGER("2"),
    ),
    Recipe("nd.Map"),
    Recipe("nd.DivergenceError", message=ANY('"x"'), time=ANY("1.0"), population=ANY('"a"')),
    # the declaration
    Recipe(
        "nd.Population",
        name=IDENTIFIER('"a"', wrong=['"time"', '"sample"', '"a-b"', '"1a"'], either=['"network"', '"seed"']),
        size=(NATURAL | NOTHING)("3", right=["(1, 2)"], wrong=["(1, -2)", "(1, 2.5)", "(1, True)"]),
        tau=REAL(
            "1.0",
            right=["0", "0.0", "torch.ones(3)", "torch.tensor([1.0, 2.0, 3.0])"],
            wrong=["-1", "-0.5", "np.int64(-1)"],
        ),
        leak=REAL("1.0", right=["0", "0.0", "torch.ones(3)"], wrong=["-1", "-0.5", "np.int64(-1)"]),
        initial=REAL(
            "0.0",
            right=["torch.ones(3)", "nd.ForwardValue(stage())", "nd.Noisy(nd.Input(), 0.1)"],
            either=["nd.Input()"],
        ),
        clamp=(OBJECT | NOTHING)("None", right=["nd.Input()", "nd.Noisy(nd.Input(), 0.1)", "nd.Constant(1.0)"]),
        noise=REAL("0.0", right=["0", "0.5", "torch.ones(3)"], wrong=["-1", "-0.5", "np.int64(-1)"]),
        bounds=(OBJECT | NOTHING)(
            "None",
            right=["(0.0, 1.0)", '(-float("inf"), 1.0)', "[-1, 1]", "(-torch.ones(3), 1.0)"],
            wrong=["(1.0, 0.0)", "(0.5, 1.0)", "(0.0, None)", "(torch.zeros(2), 1.0)", '(0.0, float("nan"))'],
        ),
    ),
    Recipe("nd.Prospective", population=IDENTIFIER('"a"', either=['"a b"', '""'])),
    Recipe(
        "nd.Coupling",
        source=IDENTIFIER('"a"', either=['"a b"', '""'], wrong=['("a", "c")', "(1, 2)", '("a", "a")']),
        target=IDENTIFIER('"b"', either=['"a b"', '""']),
        map=OBJECT("nd.Identity()", right=["nd.Identity()", "Doubled()"], wrong=["Doubled", "nn.Tanh"]),
        gain=REAL(
            "1.0",
            right=["torch.ones(3)"],
            either=["torch.zeros(4, 3, dtype=torch.float64)"],
            wrong=["0", "0.0", "torch.zeros(3)"],
        ),
        delay=REAL("0.0", right=["0", "0.5"], wrong=["-1", "-0.5", "np.int64(-1)"]),
    ),
    Recipe(
        "nd.Plasticity",
        stage=OBJECT("stage()", right=["stage()"], wrong=["nd.Stage(nn.Tanh())"]),
        pre=IDENTIFIER('"a"', either=['"a b"', '""']),
        post=IDENTIFIER('"b"', either=['"a b"', '""']),
        when=CHOICE('"end"', right=["nd.AtStep(1)", "nd.OnSpike(2)"], wrong=["nd.AtStep", '"start"']),
        presynaptic=CHOICE('"frozen"', right=['"live"'], wrong=['"none"']),
        derivative=(CHOICE | NOTHING)('"frozen"', right=['"live"', '"none"']),
        gain=REAL("1.0", either=["0", "0.0"]),
        weights=(OBJECT | NOTHING)("None", wrong=["fb()"]),
        regularizer=(OBJECT | NOTHING)("None", right=["nd.Orthogonality(0.1)"], wrong=["nd.Orthogonality"]),
    ),
    Recipe("nd.Orthogonality", strength=POSITIVE("0.1")),
    Recipe(
        "nd.Observable",
        name=IDENTIFIER('"energy"', either=['"time"', '"sample"', '"a_unit"']),
        value=FUNCTION("lambda activity: activity"),
        long_name=TEXT('"energy"'),
    ),
    Recipe(
        "nd.Network",
        name=TEXT('"x"'),
        populations=OBJECT(
            '[nd.Population("a", 3), nd.Population("s", 3, clamp=nd.Input())]',
            right=['(nd.Population(n, 3) for n in "as")'],
            wrong=['[nd.Population("s", 3)] * 2 + [nd.Population("a")]', '[nd.Population("a", 3)]', "[nd.Population]"],
        ),
        couplings=OBJECT(
            '[nd.Coupling("s", "a")]',
            right=["[]", "()"],
            either=_EMPTY,
            wrong=[
                '[nd.Coupling("s", "b")]',
                '[nd.Coupling("b", "a")]',
                '[nd.Coupling("a", "s")]',
                'nd.Coupling("s", "a")',
            ],
        ),
        plasticity=OBJECT(
            "[]",
            right=["[]", "()", '[nd.Plasticity(stage(), "s", "a", presynaptic="live")]'],
            either=_EMPTY,
            wrong=[
                '[nd.Plasticity(stage(), "s", "a")]',
                '[nd.Plasticity(stage(), "s", "b", presynaptic="live")]',
                '[nd.Plasticity(stage(), "s", "a", nd.AtStep(1), "live")]',
                '[nd.Plasticity(nd.Stage(nn.Linear(3, 7)), "s", "a", presynaptic="live")]',
            ],
        ),
        forward=OBJECT("[]", right=["[]", "()", "[stage()]"], either=_EMPTY, wrong=["[linear()]", "stage()"]),
        loss=FUNCTION("lambda y, t: (y - t).square().sum(1)", wrong=['"mse"']),
        inference=(OBJECT | NOTHING)("None", right=["nd.Inference(0.1, 3)"], wrong=["nd.Inference"]),
        observables=OBJECT(
            "[]",
            right=["[]", "()", '[nd.Observable("e", len, "e")]'],
            either=_EMPTY,
            wrong=[
                *(f'[nd.Observable("{name}", len, "e")]' for name in ("a", "time", "sample", "a_unit")),
                '[nd.Observable("e", len, "e")] * 2',
                "[len]",
            ],
        ),
        algebraic=(CHOICE | NOTHING)('"solve"', wrong=['"Solve"']),
    ),
    Recipe("net().equations"),
    Recipe("net().into", name=IDENTIFIER('"a"', either=['"a b"', '""'], wrong=['"nonsense"', '"x"'])),
    Recipe("net().__getitem__", "{}", name=IDENTIFIER('"a"', wrong=['"nonsense"', '"x"'])),
    Recipe(
        "ar_net().regularized", regularizer=OBJECT("nd.Orthogonality(0.1)", right=["None"], wrong=["nd.Orthogonality"])
    ),
    Recipe(
        "net().with_dynamics",
        populations=OBJECT('[nd.Population("a", 3)]', wrong=["[]", '[nd.Population("a", 3)] * 2']),
        couplings=OBJECT("[]", right=["[]", "()"], either=_EMPTY, wrong=['[nd.Coupling("s", "a")]']),
    ),
    Recipe("net().plot", ax=(OBJECT | NOTHING)("axes()")),
    # modules
    Recipe(
        "nd.mlp",
        sizes=SIZES,
        activation=CHOICE('"relu"', right=['"tanh"', '"linear"'], wrong=["nn.ReLU()", '"Relu"']),
        weights=CHOICE('"xavier"', right=['"scaled"', '"default"', '"orthogonal"']),
        seed=SEED,
        device=DEVICE,
        dtype=DTYPE,
    ),
    Recipe("nd.cut", module=MODULE, before_activation=FLAG("False")),
    Recipe(
        "nd.capture",
        module=MODULE,
        example_input=TENSOR(
            "x()",
            right=["torch.zeros(4, 3, requires_grad=True)"],
            either=["torch.zeros(4, 3, 1, 2)", 'torch.full((4, 3), float("nan"))', 'torch.zeros(4, 3, device="meta")'],
        ),
    ),
)
"""Each of a public name, or of what a user derives from one."""
