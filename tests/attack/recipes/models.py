"""Calls that declare the models of the literature."""

from __future__ import annotations

from tests.attack.kinds import CHOICE, FUNCTION, NATURAL, NOTHING, OBJECT, POSITIVE, TENSOR
from tests.attack.recipes.common import DEVICE, DTYPE, MODULE, SEED, SIZES, Recipe

_DERIVATIVE = CHOICE('"frozen"', right=['"live"', '"none"'], wrong=["None"])
_OUTPUT = CHOICE('"clamped"', right=['"relaxing"'], wrong=["None"])
_LOSS = FUNCTION("lambda y, t: (y - t).square().sum(1)", wrong=['"mse"', "None"])
_INVERTIBLE = OBJECT(
    "square()", either=["nn.Tanh()"], wrong=["module()", "nn.Linear(3, 2)", "nn.Sequential(linear(), nn.ReLU())"]
)
_SMALL = POSITIVE(
    "0.1",
    right=["1", "0.5"],
    wrong=["2", "2.0", "np.int64(2)", "np.uint8(2)", "np.float64(2.0)", "10**30", "1e300"],
    either=["1e-300"],
)

MODELS = (
    Recipe(
        "ar.network",
        module=MODULE,
        feedback=CHOICE('"transpose"', right=['"fixed"', '"learned"'], wrong=["None"]),
        relaxation_derivative=_DERIVATIVE,
        weight_derivative=_DERIVATIVE,
        presynaptic=CHOICE('"frozen"', right=['"live"'], wrong=['"none"']),
        input=CHOICE('"relaxing"', right=['"clamped"']),
        output=_OUTPUT,
        simplified=CHOICE('"all"', right=['"fully connected"'], wrong=['"convolutional"']),
        loss=_LOSS,
        seed=SEED,
    ),
    Recipe(
        "ar.graph",
        module=MODULE,
        example_input=TENSOR(
            "x()",
            either=["torch.zeros(4, 3, 1, 2)", 'torch.full((4, 3), float("nan"))', 'torch.zeros(4, 3, device="meta")'],
        ),
        output=_OUTPUT,
        loss=_LOSS,
    ),
    Recipe(
        "ar.cnn",
        classes=NATURAL("2", untried=["10**30", "10**400"]),
        input_shape=OBJECT(
            "(1, 8, 8)",
            wrong=["(1, 4, 4)", "(8, 8)", "(1, 8, 8, 8)", "(0, 8, 8)", '(1, 8, "x")', "(1, 8.0, 8)", "(True, 8, 8)"],
            either=["[np.int64(1), 8, 8]"],
        ),
        seed=SEED,
    ),
    Recipe(
        "pc.network",
        module=MODULE,
        learning=CHOICE('"il"', wrong=['"IL"', "None"]),
        error_tau=POSITIVE("1.0", right=["0", "0.0"]),
        steps=(NATURAL | NOTHING)("3", right=['"equilibrium"'], either=["0", "10**30", "10**400"]),
        step=(POSITIVE | NOTHING)("None"),
        initial_noise=POSITIVE("0.0", right=["0", "0.0"]),
    ),
    Recipe(
        "pc.network",
        module=MODULE,
        learning=CHOICE('"fa-z-il"', either=['"z-il"', '"il"']),
        spike_window=NATURAL("4"),
        spike=CHOICE('"error"', right=['"moved"'], wrong=["None"]),
    ),
    Recipe(
        "tp.network",
        module=_INVERTIBLE,
        rule=CHOICE('"gait"', right=['"tp"', '"itp"'], wrong=['"GAIT"', "None"]),
        gamma=_SMALL,
        form=CHOICE('"naive"', right=['"deviation"'], wrong=["None"]),
        loss=_LOSS,
    ),
    Recipe(
        "tp.weak_feedback",
        module=_INVERTIBLE,
        gamma=_SMALL,
        rule=CHOICE('"gait"', right=['"itp"'], wrong=['"tp"']),
        loss=_LOSS,
    ),
    Recipe(
        "tp.tower",
        sizes=OBJECT(
            "[5, 3, 3]",
            right=["(2, 2)"],
            either=["[np.int64(3), 2]"],
            wrong=["(1, 2)", *(w for w in SIZES.wrong if w != "(1, 2)")],
        ),
        outputs=(NATURAL | NOTHING)("2", wrong=["10**30", "10**400", "5"]),
        activation=CHOICE('"tanh"', right=['"leaky_relu"', '"linear"'], wrong=['"relu"', "None"]),
        weights=CHOICE('"orthogonal"', right=['"xavier"'], wrong=["None"]),
        seed=SEED,
        device=DEVICE,
        dtype=DTYPE,
    ),
)
