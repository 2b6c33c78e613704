"""A network bound to data: inputs checked at the door, the state, the vector field, and several networks as one.

Imports `structure`, `network` and `layers`.
"""
