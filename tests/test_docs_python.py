"""The Python of the documentation runs, in the order of its page, and prints what is shown below it."""

import functools
import io
import re
from contextlib import redirect_stdout

import pytest

import edgerecover
from tests.api.conftest import PROFILE, make_pruned
from tests.documentation import DOCS, ROOT, shows, without_numbers

PAGE = DOCS / "tutorial-python.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def blocks_of(text):
    """Code, and what it prints; empty if that is not shown."""
    return [(code, output or "") for code, output in _BLOCK.findall(text)]


def printed_by(code, names):
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, PAGE.name, "exec"), names)
    return printed.getvalue()


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = blocks_of(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 10
    for code, output in blocks:
        printed = printed_by(code, names)
        assert shows(without_numbers(output), without_numbers(printed)), f"{code}\n{printed}\ninstead of:\n{output}"
    assert {path.name for path in tmp_path.iterdir()} == {"digits.bundle", "recovered.pt"}


def test_readmes_python_runs(tmp_path, monkeypatch):
    """On tiny networks, and as quick as it can be."""
    import torch
    from torch import nn

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(PROFILE)
    quick = functools.partial(edgerecover.recover, profile="tiny.toml", precision="fp32", progress=False)
    monkeypatch.setattr(edgerecover, "recover", quick)
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    ((code, _),) = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    printed = printed_by(code, {"dense": dense, "pruned": make_pruned(dense)})
    assert "Verdict" in printed
    assert edgerecover.open_bundle("model.bundle").manifest["target"] == "jetson-orin"
