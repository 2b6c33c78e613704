"""Calls that train a network, and those that give data to learn from."""

from __future__ import annotations

from tests.attack.kinds import (
    ANY,
    CHOICE,
    COUNT,
    FLAG,
    FUNCTION,
    NATURAL,
    NOTHING,
    OBJECT,
    PATH,
    POSITIVE,
    SAMPLES,
    TEXT,
)
from tests.attack.recipes.common import SEED, SOLVERS, Recipe

_DATA = SAMPLES(
    "pair()",
    right=[
        "TensorDataset(*pair())",
        "list(pair())",
        'nd.data.Samples(x(), torch.tensor([0, 1, 0, 1]), classes=2, name="s")',
    ],
    wrong=["x()", "(x(), t(5))", "(x(), t().long())", "[pair(), pair()]", "(x(0), t(0))", "(x(), None)"],
)
_FIT = {
    "train": SAMPLES(
        _DATA.valid,
        right=_DATA.right,
        wrong=[
            "(x() / 0, t())",
            "(x(4, 2), t())",
            "(x(), t(4, 3))",
            *(w for w in _DATA.wrong if "pair" in w or "t(" in w),
        ],
    ),
    "test": (SAMPLES | NOTHING)(
        _DATA.valid, right=_DATA.right, wrong=["(x() / 0, t())", "(x(4, 2), t())", "(x(), t(4, 3))"]
    ),
    "epochs": NATURAL("1", untried=["10**30", "10**400"]),
    "batch_size": NATURAL("2", either=["10**30", "10**400"]),
    "optimizer": FUNCTION(
        '"adam"',
        right=['"sgd"', "torch.optim.SGD"],
        wrong=[
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
            '"Adam"',
            "torch.optim.LBFGS",
            "torch.optim.SGD([torch.zeros(1, requires_grad=True)])",
            "lambda p: torch.optim.SGD([torch.zeros(1, requires_grad=True)])",
            "lambda p: torch.optim.SGD(p[:1])",
            "lambda p: (torch.optim.SGD(p), 0.1)",
        ],
    ),
    "seed": COUNT("0"),
    "device": (CHOICE | NOTHING)('"cpu"', right=['torch.device("cpu")'], wrong=['"gpu"', '"cuda:99"', '"meta"']),
    "checkpoint": (PATH | NOTHING)("None", wrong=['saved("y.nc")'], either=['b"x"', '""']),
    "checkpoint_minutes": POSITIVE("1.0", right=["0", "0.0"]),
    "resume": CHOICE('"auto"', wrong=['"always"', '"sometimes"']),
    "record": (CHOICE | NOTHING)(
        "None",
        right=['"iterations"', '["angles"]', "[]", "()"],
        either=["{}", "False", "0", "0.0"],
        wrong=['["x"]', '"angle"'],
    ),
    "progress": FLAG("None", either=["True"]),
    "callbacks": OBJECT(
        "()",
        right=["()", "[]", "[print]"],
        either=["{}", "torch.zeros(0)"],
        wrong=["[1]", "print", "[None]", "[lambda: 0]"],
    ),
    "metrics": OBJECT(
        "None",
        right=["None", "{}", '{"one": lambda network: 1.0}', '{"two": lambda network: np.zeros(2)}'],
        either=["xr.Dataset()"],
        wrong=['{"train_loss": lambda network: 1.0}', '{"x": lambda: 0}', '{"x": lambda network: "y"}', "{3: len}"],
    ),
}

TRAINING = (
    Recipe("nd.train.batches", "list({})", data=_DATA, batch_size=NATURAL("2"), seed=SEED, epoch=NATURAL("1")),
    Recipe(
        "nd.train.launched",
        "{}.__enter__()",
        device=CHOICE('"cpu"', right=['torch.device("cpu")'], wrong=['"gpu"', '"cuda:99"', '"meta"']),
    ),
    Recipe(
        "nd.train.DivergedError",
        message=ANY('"x"'),
        epoch=ANY("1"),
        batch=ANY("1"),
        history=ANY("dataset()"),
        time=ANY("1.0"),
        population=ANY('"a"'),
    ),
    Recipe(
        "nd.train.fit",
        network=OBJECT(
            "module()",
            right=["ar_net()"],
            wrong=["module", "[module()]", "net()", "nn.Sequential()", "nn.Linear(3, 7)"],
            either=["nn.Tanh()"],
        ),
        learning_rate=(POSITIVE | NOTHING)("None"),
        loss=(FUNCTION | NOTHING)(
            "None",
            right=["lambda y, t: (y - t).square().sum(1)"],
            wrong=[
                '"mse"',
                "nn.MSELoss()",
                "nn.functional.mse_loss",
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
        duration=NOTHING("None"),
        solver=NOTHING("None"),
        **_FIT,
    ),
    Recipe(
        "nd.train.fit",
        network=OBJECT(
            "pc_net()", either=["nn.Tanh()"], wrong=["pc_net", "[pc_net()]", "net()", 'pc_net(learning="z-il")']
        ),
        learning_rate=(POSITIVE | NOTHING)("None"),
        loss=NOTHING("None", wrong=["lambda y, t: (y - t).square().sum(1)"]),
        duration=(POSITIVE | NOTHING)("1.0", untried=["10**30", "1e300"], wrong=["None"]),
        solver=(OBJECT | NOTHING)(
            "nd.Euler(0.1)", right=SOLVERS[:4], wrong=["nd.Euler", '"rk4"', "nd.Exact()"], either=["nd.TorchDiffEq()"]
        ),
        **_FIT,
    ),
    Recipe(
        "nd.train.fit",
        network=OBJECT(
            "[ar_net(), ar_net()]",
            right=["[module(), module()]"],
            either=["net()"],
            wrong=[
                "ar_net()",
                "[ar_net()]",
                "[ar_net(), pc_net()]",
                "[ar_net()] * 2",
                "[ar_net(), module()]",
                "[module(), nd.mlp([3, 4, 2])]",
                '[module(), nd.mlp([3, 5, 2], activation="relu")]',
            ],
        ),
        seeds=SAMPLES(
            "[0, 1]",
            right=["(1, 2)", "[np.int64(0), 1]", "range(2)"],
            either=["(i for i in range(2))", "{1, 2}"],
            wrong=["[0]", "[0, 0]", "[0, -1]", "[0, 0.5]", "[0, True]", "3", "None"],
        ),
        **{
            name: argument
            for name, argument in _FIT.items()
            if name in ("train", "test", "epochs", "batch_size", "optimizer")
        },
    ),
    # data sets
    Recipe(
        "nd.data.Samples",
        inputs=SAMPLES(
            "x()",
            right=[
                "torch.zeros(4, 3)",
                "torch.zeros(4, 3, dtype=torch.uint8)",
                "torch.zeros(4, 3, 1, 2)",
                "torch.zeros(4, 3, dtype=torch.float64)",
            ],
            either=[
                "torch.zeros(4, 3).to_sparse()",
                'torch.full((4, 3), float("nan"))',
                'torch.zeros(4, 3, device="meta")',
            ],
        ),
        labels=SAMPLES(
            "torch.tensor([0, 1, 0, 1])",
            wrong=[
                "torch.tensor([0, 1, 0])",
                "torch.tensor([0, 1, 0, 9])",
                "torch.tensor([0, -1, 0, 0])",
                "t()",
                "[0, 1, 0, 1]",
            ],
        ),
        classes=NATURAL("2", wrong=["1"]),
        name=TEXT('"x"'),
    ),
    Recipe(
        "nd.data.digits",
        test_fraction=POSITIVE(
            "0.2",
            wrong=[
                "1",
                "2",
                "2.0",
                "0",
                "np.int64(2)",
                "np.uint8(2)",
                "np.float64(2.0)",
                "1e300",
                "1e-300",
                "10**30",
                "torch.tensor(1)",
                "Decimal(1)",
            ],
        ),
        seed=SEED,
        flatten=FLAG("True"),
    ),
    *(
        Recipe(
            f"nd.data.{name.replace('-', '_')}",
            root=PATH(
                f'byte_data("{name}")',
                right=[f'str(byte_data("{name}"))'],
                untried=["None", '""'],
                wrong=['"x"', '"nonsense"', '"a b"', 'Path("x")'],
                either=['b"x"'],
            ),
            flatten=FLAG("True"),
        )
        for name in ("mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn")
    ),
)
