"""Activation relaxation without weight transport, and without nonlinear derivatives.

A perceptron learns (a) with feedback weights ψ of its own in place of Wᵀ, which learn by Δψ = (ΔW)ᵀ; (b) without f' in
the relaxation; (c) with both simplifications; (d) with ψ that stay as they were drawn, as in feedback alignment. Test
accuracy is shown beside backprop's, and how ψ comes to point along Wᵀ, and the update along backprop's gradient.

After figure 3 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.claims import AR, Row, holds, write_rows
from common.learning_curves import (
    BACKPROP,
    BASELINE,
    PerceptronOptions,
    Variants,
    beside,
    caption,
    compare,
    draw,
    draw_accuracy,
    draw_angles,
    draw_feedback,
    equivalent,
    summary,
)
from common.options import parse
from common.report import write
from matplotlib.figure import Figure

from neurodyn import plot

LEARNED, FIXED = "learned ψ", "fixed ψ"
WITHOUT, BOTH, FIXED_WITHOUT = "no derivative", "learned ψ, no derivative", "fixed ψ, no derivative"
NO_DERIVATIVE: dict[str, Any] = {"relaxation_derivative": "none"}
VARIANTS: Variants = {
    BASELINE: {},
    LEARNED: {"feedback": "learned"},
    WITHOUT: NO_DERIVATIVE,
    BOTH: {"feedback": "learned", **NO_DERIVATIVE},
    FIXED: {"feedback": "fixed"},
    FIXED_WITHOUT: {"feedback": "fixed", **NO_DERIVATIVE},
}


@dataclass(frozen=True)
class Options(PerceptronOptions):
    """What to run."""

    epochs: int = 15
    out: Path = Path("results/simplifications")


PAPER = Options(full=True, dataset="mnist", epochs=10, rate=0.0005, seeds=tuple(range(5)))


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = compare(options, options.build, VARIANTS)
    about = {"layers": "-".join(map(str, options.layers)), "activation": options.activation}
    with plot.style():
        files = write(options.out, {"simplifications": figure(found)}, {"simplifications": found}, about)
    print(f"Activation relaxation simplified: {options.activation}, hidden layers {about['layers']}")
    here = f"{options}, {options.activation}, hidden layers {about['layers']}"
    print(summary(found), write_rows(options, here, rows(found)), files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figures 2 and 3."""
    setting = "MNIST, 784-300-300-100-10, ReLU, 10 epochs of SGD"
    say: dict[str, str] = {"paper": AR, "setting": setting}
    made = equivalent(
        found, {BASELINE: "figure 2"}, claim="learning curves largely indistinguishable", reference=BACKPROP, **say
    )
    figures = {LEARNED: "figure 3 a", WITHOUT: "figure 3 b", BOTH: "figure 3 c"}
    made += equivalent(found, figures, claim="effectively no difference in performance", **say)
    gap, ours = beside(found, FIXED, LEARNED)
    lower = holds(float(gap.fillna(-np.inf).mean()) < 0, "not lower than with learned ψ")
    claim = "fixed ψ: a lower accuracy than learned ψ, with a tendency to diverge"
    made.append(Row(AR, "§3.1", setting, claim, ours, lower))
    return made


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 6.8))
    axes = picture.subplots(2, 4)
    panels = {
        "(a) Feedback weights that learn": [LEARNED],
        "(b) No derivative in the relaxation": [WITHOUT],
        "(c) Both simplifications": [BOTH],
        "(d) Feedback weights that stay": [FIXED, FIXED_WITHOUT],
    }
    for ax, (title, variants) in zip(axes[0], panels.items(), strict=True):
        draw_accuracy(ax, found, variants)
        ax.set_title(title)
    for ax, name, letter in zip(axes[1], (LEARNED, BOTH, FIXED), "efg", strict=False):
        draw_feedback(ax, found, name)
        ax.set_title(f"({letter}) {name}")
    for name in VARIANTS:
        if name != BASELINE:
            draw(axes[1, 3], found.update_angle.sel(variant=name).mean("layer"), name)
    draw_angles(axes[1, 3], "angle of the update to backprop's (°)")
    axes[1, 3].set_title("(h) The update, mean of the layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
