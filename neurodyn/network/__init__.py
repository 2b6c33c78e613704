"""The declaration, without data: populations, couplings and their maps, drives, plasticity; and its text.

Imports `layers`.
"""
