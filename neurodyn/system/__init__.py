"""A network bound to data: inputs checked at the door, the state, the vector field, several networks as one.

Imports `structure`, `network` and `layers`.
"""
