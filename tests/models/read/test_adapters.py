"""Low-rank adapters in pickled modules, as PEFT lays them out, are merged into the weights, or left for a refusal."""

import pytest
import torch
from torch import nn

from edgerecover.models.read.load import read_checkpoint


class Adapted(nn.Module):
    """A layer with one adapter, of rank 2 and scale 0.5."""

    def __init__(self, layer, down, up):
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.ModuleDict({"default": down})
        self.lora_B = nn.ModuleDict({"default": up})
        self.scaling = {"default": 0.5}
        self.use_dora = {"default": False}
        self.merged_adapters = []
        self._disable_adapters = False
        self._active_adapter = ["default"]

    def forward(self, x):
        return self.base_layer(x) + 0.5 * self.lora_B["default"](self.lora_A["default"](x))


class Wrapper(nn.Module):
    """PEFT's two wrappers around the network."""

    def __init__(self, network):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = network


LAYERS = {
    "linear": lambda: Adapted(nn.Linear(6, 4), nn.Linear(6, 2, bias=False), nn.Linear(2, 4, bias=False)),
    "conv": lambda: Adapted(
        nn.Conv2d(6, 4, 3), nn.Conv2d(6, 2, 3, bias=False), nn.Conv2d(2, 4, 1, bias=False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_are_merged(tmp_path, kind):
    torch.manual_seed(0)
    adapted = LAYERS[kind]()
    torch.save(Wrapper(nn.Sequential(adapted)), tmp_path / "model.pt")
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert checkpoint.tensors.keys() == {"0.weight", "0.bias"}
    assert "1 low-rank adapters merged" in checkpoint.format
    x = torch.rand(2, 6) if kind == "linear" else torch.rand(2, 6, 5, 5)
    plain = adapted.base_layer
    expected = adapted(x)
    plain.load_state_dict({key.removeprefix("0."): tensor for key, tensor in checkpoint.tensors.items()})
    torch.testing.assert_close(plain(x), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_dora", {"default": True}),
        ("merged_adapters", ["default"]),
        ("_active_adapter", ["other"]),
        ("scaling", {}),
    ],
)
def test_what_is_no_plain_adapter_is_left(tmp_path, name, value):
    adapted = LAYERS["linear"]()
    setattr(adapted, name, value)
    torch.save(Wrapper(nn.Sequential(adapted)), tmp_path / "model.pt")
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert "low-rank adapters (LoRA)" in checkpoint.doubts[0].text
    assert "merge_and_unload()" in checkpoint.doubts[0].hint
