"""How Hypothesis runs in all tests."""

from hypothesis import settings

# No deadline: how long an example takes says something of the machine, and of what else runs on it.
settings.register_profile("neurodyn", deadline=None)
settings.load_profile("neurodyn")
