import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_whole_benchmark_runs_at_toy_size():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--toy"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for method in ("paper", "balanced", "ceiling"):
        assert f"\n| {method} |" in done.stdout
    assert "| vgg_small | paper |" in done.stdout
