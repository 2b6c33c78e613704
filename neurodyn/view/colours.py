"""The colours of pictures, whatever draws them."""

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#555555"
"""From the palette of M. Okabe and K. Ito, whose colours colour-blind readers can tell apart, and a grey."""

MAPS = {"Identity": "#777777", "Forward": BLUE, "Feedback": VERMILION, "Inverse": GREEN}
"""Of couplings, by their map."""
OWN = (PURPLE, ORANGE, SKY, BLACK)
"""Of couplings by a user's own maps, one after the other."""
OTHER_KINDS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "forward": ("forward pass", "#999999", (4.0, 1.5)),
    "plasticity": ("learns", BLACK, (1.0, 1.5)),
}
"""The names, colours and dashes of arrows that nothing flows along in time."""
