"""neurodyn: networks of neurons as coupled dynamical systems, declared, simulated, recorded and trained."""

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from neurodyn import analysis, data, train
from neurodyn.errors import DivergenceError, NeurodynError
from neurodyn.layers.capture import capture
from neurodyn.layers.cutting import cut
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.kernels import kernels
from neurodyn.layers.losses import Loss
from neurodyn.layers.modules import FirstUnits, mlp
from neurodyn.layers.sparse import SparseLinear
from neurodyn.layers.stages import Stage
from neurodyn.layers.tuning import tune
from neurodyn.learning.backward import backward
from neurodyn.network.coupling import Coupling, Prospective
from neurodyn.network.deviations import ForwardDeviation, InverseDeviation
from neurodyn.network.drives import Constant, Data, Drive, ForwardValue, Input, LossGradient, Noisy, Target
from neurodyn.network.maps import Activity, Map
from neurodyn.network.network import Network
from neurodyn.network.observable import Observable
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.pointwise import Identity, Pointwise
from neurodyn.network.population import Population
from neurodyn.network.regularizers import Orthogonality, Regularizer
from neurodyn.network.signals import Signal
from neurodyn.network.stage_maps import Feedback, Forward, Inverse
from neurodyn.network.timing import AtStep, Inference, OnSpike, When
from neurodyn.network.wrapping import Modulated
from neurodyn.simulation.activity import activity
from neurodyn.simulation.files import load, save
from neurodyn.simulation.inference import infer
from neurodyn.simulation.simulate import equilibrium, simulate
from neurodyn.simulation.sweep import sweep
from neurodyn.solvers import RK4, Adaptive, Euler, Exact, Heun, Solver, Stabilized, TorchDiffEq, steady
from neurodyn.solvers.fixed import FixedStep
from neurodyn.solvers.tableaux import Pair, Tableau
from neurodyn.system.system import System
from neurodyn.view.page import view

__version__ = version("neurodyn")


def __getattr__(name: str) -> ModuleType:
    """Import `neurodyn.models`, for the library itself knows no model, and `neurodyn.plot` when first asked for."""
    if name in ("models", "plot"):
        return import_module(f"neurodyn.{name}")
    raise AttributeError(f"module 'neurodyn' has no attribute {name!r}")


__all__ = [
    "RK4",
    "Activity",
    "Adaptive",
    "AtStep",
    "Constant",
    "Coupling",
    "Data",
    "DivergenceError",
    "Drive",
    "Euler",
    "Exact",
    "Feedback",
    "FeedbackWeights",
    "FirstUnits",
    "FixedStep",
    "Forward",
    "ForwardDeviation",
    "ForwardValue",
    "Heun",
    "Identity",
    "Inference",
    "Input",
    "Inverse",
    "InverseDeviation",
    "Loss",
    "LossGradient",
    "Map",
    "Modulated",
    "Network",
    "NeurodynError",
    "Noisy",
    "Observable",
    "OnSpike",
    "Orthogonality",
    "Pair",
    "Plasticity",
    "Pointwise",
    "Population",
    "Prospective",
    "Regularizer",
    "Signal",
    "Solver",
    "SparseLinear",
    "Stabilized",
    "Stage",
    "System",
    "Tableau",
    "Target",
    "TorchDiffEq",
    "When",
    "activity",
    "analysis",
    "backward",
    "capture",
    "cut",
    "data",
    "equilibrium",
    "infer",
    "kernels",
    "load",
    "mlp",
    "save",
    "simulate",
    "steady",
    "sweep",
    "train",
    "tune",
    "view",
]
