"""What one looks at: the picture of a network, and the page of a dataset.

Imports whatever it shows.
"""
