"""Activation relaxation without a memory of the forward pass: four assumptions dropped, of which one is needed.

While it relaxes, AR refers to the forward pass in three places: f' in the relaxation, f' in the weight update, and the
presynaptic activity in the weight update. A perceptron learns with each of them taken at the live activity instead:
(a) f' in the relaxation, (b) f' in the weight update, (c) both, (d) the presynaptic activity. In the authors' code the
input layer relaxes too, so that in (d) the first layer, as all others, learns from activity that has become a gradient;
(d) is shown also with the input clamped.

After figures 1 and 3 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Investigating the Scalability and
Biological Plausibility of the Activation Relaxation Algorithm" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.claims import AR_SCALE, Row, holds, write_rows
from common.learning_curves import (
    BASELINE,
    PerceptronOptions,
    Variants,
    beside,
    caption,
    compare,
    draw,
    draw_accuracy,
    draw_angles,
    equivalent,
    summary,
)
from common.options import ActivationName, parse
from common.report import write
from matplotlib.figure import Figure

from neurodyn import plot

RELAXATION: dict[str, Any] = {"relaxation_derivative": "live"}
WEIGHTS: dict[str, Any] = {"weight_derivative": "live"}
PRESYNAPTIC: dict[str, Any] = {"presynaptic": "live"}
PANELS: dict[str, Variants] = {
    "(a) f' in the relaxation": {"live f', relaxation": RELAXATION},
    "(b) f' in the weight update": {"live f', weights": WEIGHTS},
    "(c) f' in both": {"live f', both": RELAXATION | WEIGHTS},
    "(d) Presynaptic activity": {
        "live presynaptic": PRESYNAPTIC,
        "live presynaptic, input clamped": PRESYNAPTIC | {"input": "clamped"},
    },
}
VARIANTS: Variants = {BASELINE: {}} | {name: options for panel in PANELS.values() for name, options in panel.items()}


DESTROYED = 20.0
"""So many points less are called destroyed."""


@dataclass(frozen=True)
class Options(PerceptronOptions):
    """What to run."""

    layers: tuple[int, ...] = (100, 100, 50)
    activation: ActivationName = "tanh"
    out: Path = Path("results/frozen_pass")


PAPER = Options(full=True, dataset="mnist", layers=(300, 300, 100), rate=0.0005, seeds=tuple(range(10)))
"""Some hours."""


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = compare(options, options.build, VARIANTS)
    about = {"layers": "-".join(map(str, options.layers)), "activation": options.activation}
    with plot.style():
        files = write(options.out, {"frozen_pass": figure(found)}, {"frozen_pass": found}, about)
    print(
        f"Activation relaxation with a forward pass that is not frozen: {options.activation}, layers {about['layers']}"
    )
    here = f"{options}, {options.activation}, hidden layers {about['layers']}"
    print(summary(found), write_rows(options, here, rows(found)), files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 1."""
    names = dict(zip(("live f', relaxation", "live f', weights", "live f', both"), "abc", strict=True))
    figures = {name: f"figure 1 {letter}" for name, letter in names.items()}
    setting = "MNIST, 784-300-300-100-10, tanh"
    made = equivalent(found, figures, paper=AR_SCALE, setting=setting, claim="performance is not affected")
    gap, ours = beside(found, "live presynaptic")
    destroyed = holds(bool((gap.fillna(-np.inf) < -DESTROYED).all()), f"not all seeds lose {DESTROYED:g} points")
    made.append(Row(AR_SCALE, "figure 1 d", setting, "live presynaptic activity destroys performance", ours, destroyed))
    return made


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(11, 6.8))
    axes = picture.subplot_mosaic("abe;cde")
    for letter, (title, variants) in zip("abcd", PANELS.items(), strict=True):
        draw_accuracy(axes[letter], found, variants)
        axes[letter].set_title(title)
    for name in VARIANTS:
        if name != BASELINE:
            draw(axes["e"], found.update_angle.sel(variant=name).mean("layer"), name)
    draw_angles(axes["e"], "angle of the update to backprop's (°)")
    axes["e"].set_ylim(0, 120)
    axes["e"].set_title("(e) The update, mean of the layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
