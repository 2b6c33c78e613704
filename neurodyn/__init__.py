"""neurodyn: networks of neurons as coupled dynamical systems, declared, simulated, recorded and trained."""

from importlib.metadata import version

from neurodyn import analysis, data, train
from neurodyn.capture import capture
from neurodyn.deviations import ForwardDeviation, InverseDeviation
from neurodyn.drives import Drive, ForwardValue, Input, LossGradient, Noisy, Target
from neurodyn.feedback import FeedbackWeights
from neurodyn.learning import backward
from neurodyn.maps import Feedback, Forward, Identity, Inverse, Map, Modulated
from neurodyn.modules import FirstUnits, mlp
from neurodyn.network import Network
from neurodyn.parts import Coupling, Observable, Plasticity, Population
from neurodyn.regularizers import Orthogonality, Regularizer
from neurodyn.simulate import equilibrium, simulate
from neurodyn.solvers import RK4, Adaptive, DivergenceError, Euler, Exact, Heun, Solver, Stabilized, TorchDiffEq, steady
from neurodyn.stages import Stage, cut
from neurodyn.sweep import sweep
from neurodyn.system import System
from neurodyn.timing import AtStep, Inference, OnSpike
from neurodyn.trajectory import load, save

__version__ = version("neurodyn")

__all__ = [
    "RK4",
    "Adaptive",
    "AtStep",
    "Coupling",
    "DivergenceError",
    "Drive",
    "Euler",
    "Exact",
    "Feedback",
    "FeedbackWeights",
    "FirstUnits",
    "Forward",
    "ForwardDeviation",
    "ForwardValue",
    "Heun",
    "Identity",
    "Inference",
    "Input",
    "Inverse",
    "InverseDeviation",
    "LossGradient",
    "Map",
    "Modulated",
    "Network",
    "Noisy",
    "Observable",
    "OnSpike",
    "Orthogonality",
    "Plasticity",
    "Population",
    "Regularizer",
    "Solver",
    "Stabilized",
    "Stage",
    "System",
    "Target",
    "TorchDiffEq",
    "analysis",
    "backward",
    "capture",
    "cut",
    "data",
    "equilibrium",
    "load",
    "mlp",
    "save",
    "simulate",
    "steady",
    "sweep",
    "train",
]
