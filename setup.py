"""The README as a package index shows it, where what it points to needs absolute URLs; pyproject.toml has all else."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
repository = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Homepage"]
readme = (root / "README.md").read_text(encoding="utf-8")
readme = re.sub(r'(!\[[^\]]*\]\(|src=")(?!https?:)', rf"\1{repository}/raw/main/", readme)
readme = re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{repository}/blob/main/", readme)

setup(long_description=readme, long_description_content_type="text/markdown")
