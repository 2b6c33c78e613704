"""What the longer studies draw, a module each, from the datasets that they write."""
