"""Run tests under settings that make this processor compute as others do: `make test-portable`.

Run as `python tests/portable.py PATH…`, it runs the tests in the paths once under each setting. Where a library takes
other instructions or more threads, its results differ by rounding, and a test that hangs on rounding fails.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np

SETTINGS = [
    ("ATEN_CPU_CAPABILITY", "default"),
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
    ("OMP_NUM_THREADS", "2"),
    ("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR"),
]


def main(paths: list[str]) -> int:
    """Run the tests under every setting, and return the exit status."""
    # NumPy warns of features that it does not know, and what the processor lacks need not be switched off.
    known = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    failed = []
    for variable, value in SETTINGS:
        name = f'{variable}="{value}"'
        if variable.startswith("NPY"):
            value = " ".join(feature for feature in value.split() if feature in known)
            if not value:
                print(f"{name}: skipped, since NumPy uses none of these here", flush=True)
                continue
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *paths]
        # torch.compile keeps what it made for other instructions, and would take it for what it makes for these.
        with tempfile.TemporaryDirectory() as cache:
            settings = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache, variable: value}
            done = subprocess.run(command, env={**os.environ, **settings}, check=False)
        print(f"{name}: {'failed' if done.returncode else 'passed'} in {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"The tests fail under {', '.join(failed)}.", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
