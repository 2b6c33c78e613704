"""The front doors of a run, and what it leaves: simulate, equilibrium, discrete inference, sweeps, trajectories.

Imports `solvers`, `system` and what these import.
"""
