"""The picture of a network: where its populations stand, and how its couplings run.

Imports whatever it shows.
"""
