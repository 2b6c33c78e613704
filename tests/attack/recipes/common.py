"""What recipes are made of, and the arguments that many calls take."""

from __future__ import annotations

from tests.attack.kinds import CHOICE, COUNT, NOTHING, OBJECT, TENSOR, Argument


class Recipe:
    """A valid call, `template` of function(name=value, …)."""

    def __init__(self, function: str, template: str = "{}", /, **arguments: Argument) -> None:
        self.function, self.template, self.arguments = function, template, arguments

    def call(self, **other: str) -> str:
        """Return the call as an expression, with other values for some arguments, and perhaps further arguments."""
        values = {name: argument.valid for name, argument in self.arguments.items()} | other
        return self.written(*(f"{name}={value}" for name, value in values.items()))

    def written(self, *arguments: str) -> str:
        return self.template.format(f"{self.function}({', '.join(arguments)})")


OWN_STAGE = OBJECT("stage()", right=["stage()"])
MODULE = OBJECT("module()", either=["nn.Tanh()"], wrong=["nn.LSTM(3, 3)", "nn.Sequential()", "nn.Embedding(3, 3)"])
SEED = COUNT("0")
DEVICE = (CHOICE | NOTHING)(
    '"cpu"',
    right=['torch.device("cpu")'],
    wrong=['"gpu"', '"cuda"', '"cuda:99"'],
    either=["0", "1", "2", "np.int64(2)"],
)
DTYPE = (CHOICE | NOTHING)(
    "torch.float64", right=["torch.float32"], wrong=["torch.int64", "torch.complex64", '"float32"', "float"]
)
SIZES = OBJECT(
    "[3, 5, 2]",
    right=["(1, 2)", "(3, 5, 2)"],
    either=["[np.int64(3), 2]"],
    wrong=["[3]", "[3, 0]", "[3, -1]", "[3, 2.5]", '[3, "x"]', "[3, True]", "[3, None]"],
)
SOLVERS = ("nd.RK4(0.1)", "nd.Heun(0.1)", "nd.Adaptive()", "nd.Stabilized()", "nd.TorchDiffEq()")
INPUTS = TENSOR(
    "x()",
    right=['{"s": x()}', "torch.zeros(4, 3, dtype=torch.float64)"],
    either=["torch.zeros(4, 3, requires_grad=True)"],  # refused where no graph is kept
    wrong=['{"s": x(units=4)}', '{"a": x()}', '{"s": x(), "a": x()}', "[x()]", "x().tolist()", "np.zeros((4, 3))"],
)
NO_TARGETS = NOTHING("None", wrong=["x()", "t()"])
INITIAL = OBJECT(
    "None",
    right=["None", "{}", '{"a": x()}', '{"a": torch.zeros(3)}'],
    either=["xr.Dataset()"],
    wrong=[
        '{"a": x(5)}',
        '{"a": torch.zeros(7)}',
        '{"s": x()}',
        '{"b": x()}',
        '{"a": 1.0}',
        '{"a": None}',
        '{"a": "x"}',
    ],
)
