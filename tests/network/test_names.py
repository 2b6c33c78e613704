"""Names that populations and observables may have."""

import pytest

import neurodyn as nd


@pytest.mark.parametrize(
    "name",
    ["time", "step", "sample", "network", "rule", "acts", "a_unit", "a_axis0", "a_spikes", "a_spikes4", "a b", ""],
)
def test_names_that_a_trajectory_takes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another|letters, digits"):
        nd.Network("n", [nd.Population(name, 1), nd.Population("a", 1)])
    with pytest.raises(ValueError, match=r"choose another|letters, digits"):
        nd.Network("n", [nd.Population("a", 1)], observables=[nd.Observable(name, lambda activity: activity["a"], "")])


def test_observables_have_names_of_their_own() -> None:
    one, other = (nd.Observable("energy", lambda activity: activity["a"][:, 0], long_name) for long_name in "xy")
    with pytest.raises(ValueError, match="two observables are called 'energy'; names must differ"):
        nd.Network("n", [nd.Population("a", 1)], observables=[one, other])
    with pytest.raises(TypeError, match="'energy' is no Observable"):
        nd.Network("n", [nd.Population("a", 1)], observables=["energy"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="observable e: its value is a function"):
        nd.Observable("e", 1.0, "")  # type: ignore[arg-type]
