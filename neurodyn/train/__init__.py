"""Training: epochs over a data set, by any declared network's plasticity or by backprop; checkpoints, ensembles.

Imports `learning`, `data` and what these import.
"""

from neurodyn.errors import DivergedError
from neurodyn.train.batches import Data, batches
from neurodyn.train.parallel import launched
from neurodyn.train.training import fit

__all__ = ["Data", "DivergedError", "batches", "fit", "launched"]
