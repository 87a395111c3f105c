"""The reference names every field of a recipe, a key and facts, and nothing else."""

import dataclasses
import re
from pathlib import Path

import pytest

from edgerecover.artifacts import EngineFacts, EngineKey, EngineRecipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "engines.md"


@pytest.mark.parametrize(
    ("heading", "kind"), [("The recipe", EngineRecipe), ("The facts", EngineFacts), ("The key", EngineKey)]
)
def test_the_reference_has_every_field(heading: str, kind: type) -> None:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(kind)]
