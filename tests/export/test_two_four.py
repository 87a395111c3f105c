"""The 2:4 pattern is read back from the file that is shipped."""

import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec, TwoFour
from edgerecover.export.onnx import export
from edgerecover.export.two_four import check_two_four
from edgerecover.pruning import apply_masks, two_four_masks

INPUT = InputSpec((1, 4, 4), (0.0,), (1.0,))


class TwoKinds(nn.Module):
    """Linear becomes Gemm on two dimensions and MatMul on three."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.mixed = nn.Conv2d(8, 4, 1)
        self.matmul = nn.Linear(4, 8, bias=False)
        self.gemm = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.mixed(torch.relu(self.conv(x)))).flatten(2)
        return self.gemm(self.matmul(x)[:, :2].flatten(1))


@pytest.mark.parametrize("num_spoilt", [0, 1])
def test_layers_and_groups_are_counted(tmp_path, num_spoilt):
    torch.manual_seed(0)
    network = TwoKinds().eval()
    masks, left_dense = two_four_masks(network)
    apply_masks(network, masks)
    with torch.no_grad():
        network.gemm.weight[0, : 4 * num_spoilt] = 1.0
    export(network, INPUT, tmp_path / "m.onnx", opset=18)
    assert left_dense == ("conv.weight",)
    assert check_two_four(tmp_path / "m.onnx") == TwoFour(num_layers=3, num_dense_groups=num_spoilt)
