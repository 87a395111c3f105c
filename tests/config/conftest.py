"""A target that a test may break."""

import pytest

from edgerecover.config import shipped_folder


@pytest.fixture
def target_toml(tmp_path):
    """A copy of a shipped target that a test may break."""
    path = tmp_path / "mine.toml"
    path.write_text((shipped_folder("targets") / "x86-cpu.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return path
