"""What tools leave beside weights is taken out and named; forms that only their tool can undo are refused by name."""

import pytest
import torch

from edgerecover.errors import BadInputError
from edgerecover.models.read.load import read_checkpoint

WEIGHTS = {"conv.weight": torch.ones(2, 1, 3, 3), "fc.weight": torch.ones(3, 2), "fc.bias": torch.zeros(3)}


def read(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return read_checkpoint(tmp_path / "model.pt")


def refused(tmp_path, content):
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, content)
    return caught.value


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (("total_ops", "fc.total_params"), "operation counts of a profiler left out (2 tensors)"),
        (("conv.MAdd", "conv.duration", "conv.parameter_quantity"), "operation counts of a profiler left out (3"),
        (("conv.activation_post_process.scale", "fc.weight_fake_quant.zero_point"), "fake quantisation of torch.ao"),
        (("fc.weight_quantizer._amax",), "fake quantisation of NVIDIA Model Optimizer left out"),
        (("__nncf_hooks.post_hooks.conv/conv2d/0__0.0.scale",), "fake quantisation of NNCF left out"),
    ],
)
def test_bookkeeping_is_left_out_and_named(tmp_path, left, words):
    checkpoint = read(tmp_path, WEIGHTS | {key: torch.tensor([float("inf")]) for key in left})
    assert checkpoint.tensors.keys() == WEIGHTS.keys()
    assert words in checkpoint.format
    assert checkpoint.as_spelled((WEIGHTS | dict.fromkeys(left)).keys()).tensors.keys() == WEIGHTS.keys() | set(left)


def test_counters_that_the_network_does_not_know_are_left_out(tmp_path):
    checkpoint = read(tmp_path, WEIGHTS | {"fc.step": torch.tensor(7), "scale": torch.tensor(0.5)})
    spelled = checkpoint.as_spelled(WEIGHTS.keys())
    assert spelled.tensors.keys() == WEIGHTS.keys() | {"scale"}  # a learned scale is no counter
    assert "1 counters left out, 'fc.step'" in spelled.format
    assert "fc.step" in checkpoint.as_spelled((WEIGHTS | {"fc.step": 0}).keys()).tensors


@pytest.mark.parametrize(
    ("keys", "fault", "hint"),
    [
        (("_flat_param",), "flattened by FSDP", "full_state_dict=True"),
        (("layer._fsdp_wrapped_module.flat_param_0",), "flattened by FSDP", "full_state_dict=True"),
        (("fc.weight_packed", "fc.weight_shape"), "packed by compressed-tensors", "decompress"),
        (("fc.weight.absmax",), "quantised by bitsandbytes", "dequantise"),
    ],
)
def test_forms_of_other_tools_are_refused_by_name(tmp_path, keys, fault, hint):
    error = refused(tmp_path, WEIGHTS | {key: torch.ones(4) for key in keys})
    assert fault in error.message
    assert hint in error.hint


def test_int8_layers_are_refused_by_name(tmp_path):
    error = refused(tmp_path, WEIGHTS | {"fc._packed_params._packed_params": (torch.ones(2), None)})
    assert "int8 layers of torch.ao.quantization" in error.message
    assert "before torch.ao.quantization.convert" in error.hint


def test_adapters_stop_a_network_that_has_none(tmp_path):
    adapters = {"fc.lora_A.default.weight": torch.ones(1, 2), "fc.lora_B.default.weight": torch.ones(3, 1)}
    checkpoint = read(tmp_path, WEIGHTS | adapters)
    assert "low-rank adapters (LoRA), 'fc.lora_A.default.weight' and 1 more, are not merged" in checkpoint.format
    with pytest.raises(BadInputError) as caught:
        checkpoint.as_spelled(WEIGHTS.keys())
    assert "merge_and_unload()" in caught.value.hint
    assert checkpoint.as_spelled((WEIGHTS | adapters).keys()).tensors.keys() == WEIGHTS.keys() | adapters.keys()


def test_data_parallel_on_a_part_of_the_network(tmp_path):
    state = {"features.module.0.weight": torch.ones(2, 1, 3, 3), "head.weight": torch.ones(3, 2)}
    checkpoint = read(tmp_path, state)
    assert checkpoint.tensors.keys() == {"features.0.weight", "head.weight"}
    assert checkpoint.as_spelled(state.keys()).tensors.keys() == state.keys()  # a network may have such a part itself


def test_masks_alone_are_no_weights(tmp_path):
    masks = {"conv.weight": torch.eye(8).view(8, 2, 2, 2), "fc.weight": torch.eye(8)}
    error = refused(tmp_path, masks)
    assert "these look like masks, not weights" in error.message
    assert '"masks": masks' in error.hint


def test_placeholders_of_deepspeed_are_refused(tmp_path):
    error = refused(tmp_path, {"module": {"fc.weight": torch.empty(0), "bn.running_var": torch.ones(2)}})
    assert "'fc.weight' have no values" in error.message
    assert "zero_to_fp32.py" in error.hint
    assert "zero_to_fp32.py" in refused(tmp_path, {"optimizer_state_dict": {"fp32_flat_groups": []}}).hint


def test_masks_that_are_attributes_of_pickled_modules(tmp_path):
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 4)
    weight = layer.weight.detach().clone()
    layer.mask = weight > 0
    layer.attn_mask = torch.ones(8, 8).tril()  # fits no weight
    layer.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0, 1.0]), persistent=False)
    checkpoint = read(tmp_path, layer)
    assert torch.equal(checkpoint.tensors["weight"], weight * (weight > 0))
    assert checkpoint.masks.keys() == {"weight", "bias"}
    assert "with masks that are attributes of modules" in checkpoint.format
    assert not checkpoint.doubts
