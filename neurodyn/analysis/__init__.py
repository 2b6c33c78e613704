"""What to ask of a network and its runs: one file a question.

Of a run, how far it is from backprop (`compare.py`) and when its units spike (`spikes.py`); of a network, its Jacobian,
the stability of its equilibria, how these move with a parameter, and its Lyapunov exponents.
"""

from neurodyn.analysis.compare import backprop, squared_distance
from neurodyn.analysis.continuation import continuation
from neurodyn.analysis.jacobian import jacobian
from neurodyn.analysis.lyapunov import lyapunov
from neurodyn.analysis.spikes import spikes
from neurodyn.analysis.stability import stability

__all__ = ["backprop", "continuation", "jacobian", "lyapunov", "spikes", "squared_distance", "stability"]
