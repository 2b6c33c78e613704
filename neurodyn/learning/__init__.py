"""What plasticity leaves in the parameters' `.grad` after a relaxation.

Imports `simulation`, `solvers`, `system` and what these import.
"""
