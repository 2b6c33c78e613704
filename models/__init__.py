"""Learning rules of the literature, each declared as a network."""
