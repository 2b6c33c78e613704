"""What a feedforward module offers to a network: stages, their layers, activations and inverses, losses.

A stage wraps one piece of an ordinary `torch.nn.Module`: its value, its feedback (the transposed Jacobian), its inverse
and its parameter gradient. Beside them stand the libraries that compute (`kernels`), and computations that are made for
batch after batch by the bare operations that they come down to (`repeated`). Imports nothing of neurodyn but `checks`.
"""
