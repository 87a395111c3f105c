"""What the tests of opening models share: a tiny BN convnet, saved and trusted in many ways."""

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def trust_file(tmp_path, monkeypatch):
    """No test reads or writes the records of whoever runs it."""
    path = tmp_path / "user-data" / "trusted.json"
    monkeypatch.setenv("EDGERECOVER_TRUST_FILE", str(path))
    return path


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 3),
    )


FACTORY = """
from torch import nn

def tiny(num_classes=3):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 6 * 6, num_classes),
    )

def wider():
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 6 * 6, 3),
    )

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = tiny()

    def forward(self, images_NCHW):
        return self.model(images_NCHW)

def pair():
    network = tiny()
    network.forward = lambda images_NCHW: (images_NCHW, images_NCHW)
    return network

def not_a_network():
    return 42

def broken():
    print("chatter")
    raise RuntimeError("no such weights")
"""


@pytest.fixture
def folder(tmp_path):
    """A folder as a user keeps it: nets.py, no checkpoint yet."""
    path = tmp_path / "project"
    path.mkdir()
    (path / "nets.py").write_text(FACTORY)
    return path
