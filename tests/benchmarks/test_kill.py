import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments_a_run_ends_as_undisturbed():
    done = subprocess.run(
        [sys.executable, str(KILL), "--kills", "2", "--seed", "7", "--steps", "120"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 2 | 2 |" in done.stdout
    assert "DIFFERS" not in done.stdout
    assert done.stdout.count("nothing left behind") == 2
