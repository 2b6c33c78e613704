"""Learning rules of the literature, each declared as a network."""

from neurodyn.models import activation_relaxation, predictive_coding, target_propagation

__all__ = ["activation_relaxation", "predictive_coding", "target_propagation"]
