"""Labelled data sets: downloaded or read from a folder, with inputs in [0, 1] and one-hot targets.

Imports nothing of neurodyn but `checks`.
"""

from neurodyn.data.datasets import DATASETS, Samples, cifar10, cifar100, digits, fashion_mnist, kmnist, mnist, svhn

__all__ = ["DATASETS", "Samples", "cifar10", "cifar100", "digits", "fashion_mnist", "kmnist", "mnist", "svhn"]
