"""Networks that cannot be opened, whatever their checkpoint holds."""

import pytest
import torch

from edgerecover.errors import BadInputError
from edgerecover.models.build.opening import open_checkpoint
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.read.load import read_checkpoint

EXTRA = """
from torch import nn

class Net(nn.Linear):
    def get_extra_state(self):
        return {"threshold": 0.5}

    def set_extra_state(self, state):
        pass

def net():
    return Net(3, 2)
"""


def test_extra_state_that_is_no_tensor_is_refused(tmp_path):
    (tmp_path / "net.py").write_text(EXTRA)
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    spec = ModelSpec("net.py:net", "--arch", tmp_path, None, None, "unknown", None)
    with pytest.raises(BadInputError, match="'_extra_state', which is no tensor") as caught:
        open_checkpoint(read_checkpoint(tmp_path / "model.pt"), spec)
    assert "get_extra_state" in caught.value.hint
