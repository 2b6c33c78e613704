"""What a declaration tells before any data: the structure of its dynamics, and what inference has to evaluate.

Imports `network` and `layers`.
"""
