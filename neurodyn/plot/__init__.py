"""Pictures for papers and talks: a declared network as a graph, a dataset in motion, and the look of every figure."""

from neurodyn.plot.diagrams import plot_network
from neurodyn.plot.figures import save_figure, style
from neurodyn.plot.moving import animate
from neurodyn.view.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "animate",
    "plot_network",
    "save_figure",
    "style",
]
