"""What the benchmarks do where a peer is missing."""

import io
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, run


def test_a_missing_peer_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(data):
        raise RuntimeError("Cannot subclass")

    def unsolved(data):
        return {"unsolved way": lambda: [np.zeros(1) / data["nothing"]]}

    monkeypatch.setattr(
        peers, "PEERS", {"one": broken, "two": lambda data: {"a way": lambda: [data["x"]]}, "3": unsolved}
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("a way\n"))
    np.savez(tmp_path / "problem.npz", x=np.arange(3.0))
    peers.main(str(tmp_path / "problem.npz"), str(tmp_path / "result.npz"))
    told = capsys.readouterr()
    assert told.out == "a way\n\n"
    assert "Without one (RuntimeError: Cannot subclass); `make peers` installs it anew." in told.err
    assert "Without 3 (KeyError: 'nothing')" in told.err
    with np.load(tmp_path / "result.npz") as found:
        assert found.files == ["a way x1"]
        np.testing.assert_array_equal(found["a way x1"], np.arange(3.0))


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 1\n"])
def test_without_their_environment_the_benchmarks_go_on_and_say_how_to_install_it(
    script: str | None, tmp_path: Path, monkeypatch, capsys
) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    monkeypatch.setattr(run, "PEERS", python)
    with run._peers("cpu") as found:
        assert found == {}
    told = capsys.readouterr().out
    assert all(word in told for word in ("diffrax", "torchode", "`make peers`"))
