"""The gallery runs each study from a quick setting when the site is built, and shows what it draws."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from IPython.display import Image, display

STUDIES = Path(__file__).parents[2] / "studies"


def figure(study: str, *options: str) -> None:
    """Run a study with some options, and show its first figure; an error of the study is one of the page."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(STUDIES / f"{study}.py"), *options, "--quiet", "--out", folder]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, "MPLBACKEND": "agg"})
        if done.returncode:
            raise RuntimeError(f"{study}: {done.stderr}")
        first = min(Path(folder).rglob("*.png"), key=lambda path: (len(path.name), path.name))
        display(Image(first.read_bytes()))
