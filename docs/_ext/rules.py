"""What the pages of rules show alike: the paper's equations beside the declaration, and what a gradient costs."""

import inspect
import statistics
import time
from collections.abc import Mapping, Sequence
from html import escape
from types import ModuleType

import torch
from IPython.display import HTML
from latex2mathml.converter import convert
from torch import Tensor, nn

import neurodyn as nd


def beside(model: ModuleType, rows: Sequence[tuple[str, str, nd.Network, str]]) -> HTML:
    """Return a table of the paper's equations, the lines of `model` that declare them, and what a network prints.

    Parameters
    ----------
    model
        The file of `models/`; that a line is no longer in it is an error of the page.
    rows
        An equation as TeX; lines of code; a network; and how the line of its printed equations begins.
    """
    source = {line.strip() for line in inspect.getsource(model).splitlines()}
    body = []
    for equation, code, network, begin in rows:
        for line in code.splitlines():
            if line.strip() not in source:
                raise ValueError(f"{model.__name__} has no line {line.strip()!r}")
        printed = [line.strip() for line in str(network).splitlines() if line.strip().startswith(begin)]
        declared = f'<pre>{escape(code)}</pre><pre class="printed">{escape(printed[-1])}</pre>'
        body.append(f"<tr><td>{convert(equation, display='inline')}</td><td>{declared}</td></tr>")
    heads = "<th>the paper</th><th>the declaration; in grey, what the network prints</th>"
    return HTML(f'<table class="beside"><tr>{heads}</tr>{"".join(body)}</table>')


def cost(module: nn.Module, inputs: Tensor, targets: Tensor, networks: Mapping[str, nd.Network]) -> None:
    """Print how many gradients by backprop a gradient of each network takes, one thread: the median of 15 rounds."""
    torch.set_num_threads(1)

    def backprop() -> None:
        module.zero_grad()
        (0.5 * (module(inputs) - targets).square().sum(1).mean()).backward()

    ratios: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(15):
        started = time.perf_counter()
        backprop()
        unit = time.perf_counter() - started
        for name, network in networks.items():
            started = time.perf_counter()
            nd.backward(network, inputs, targets)
            ratios[name].append((time.perf_counter() - started) / unit)
    for name, found in ratios.items():
        print(f"{name:16} {statistics.median(found):5.2f} backprops")
