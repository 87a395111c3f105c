"""Masks are told from weights however the field's tools spell them; what may be a mask and is not used is named."""

import pickle

import numpy as np
import pytest
import torch

from edgerecover.errors import BadInputError
from edgerecover.models.read.file_masks import Sibling, find_masks
from edgerecover.models.read.load import read_checkpoint

WEIGHT = torch.arange(1.0, 17.0).view(2, 2, 2, 2)
MASK = (WEIGHT.long() % 3 != 0).float()
BEFORE_AND_AFTER = {
    "torch.nn.utils.prune": ("net.conv.weight_orig", "net.conv.weight_mask"),
    "NVIDIA Model Optimizer": ("net.conv.weight", "net.conv._weight_mask"),
    "apex ASP": ("net.conv.weight", "net.conv.__weight_mma_mask"),
    "torch.ao.pruning": ("net.conv.parametrizations.weight.original", "net.conv.parametrizations.weight.0.mask"),
    "NNCF": ("net.conv.weight", "__nncf_hooks.post_hooks.net:conv:weight__0.0.binary_mask"),
    "NNCF ": ("net.conv.weight", "net.conv.pre_ops.0.op._binary_mask"),
    "": ("net.conv.weight", "net.conv.mask"),
}


def read(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("tool", BEFORE_AND_AFTER)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
def test_masks_are_applied_under_the_plain_name(tmp_path, tool, dtype):
    weight_key, mask_key = BEFORE_AND_AFTER[tool]
    checkpoint = read(tmp_path, {weight_key: WEIGHT, mask_key: MASK.to(dtype), "net.conv.bias": torch.ones(2)})
    assert checkpoint.tensors.keys() == {"conv.weight", "conv.bias"}
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert torch.equal(checkpoint.masks["conv.weight"], MASK.bool())
    assert torch.equal(checkpoint.dense_tensors["conv.weight"], WEIGHT)
    assert f"with masks {f'of {tool.strip()}' if tool else 'beside their weights'}" in checkpoint.format


@pytest.mark.parametrize("tool", BEFORE_AND_AFTER)
def test_a_network_that_has_the_tools_buffers_gets_them_back(tmp_path, tool):
    weight_key, mask_key = BEFORE_AND_AFTER[tool]
    checkpoint = read(tmp_path, {weight_key: WEIGHT, mask_key: MASK, "other": torch.ones(2)})
    spelled = checkpoint.as_spelled(dict.fromkeys((weight_key, mask_key, "other")).keys())
    assert spelled.tensors.keys() == {weight_key, mask_key, "other"}
    assert torch.equal(spelled.tensors[mask_key], MASK)
    assert spelled.masks.keys() == {weight_key}
    assert torch.equal(spelled.dense_tensors[weight_key], WEIGHT)
    assert bool((spelled.dense_tensors[mask_key] == 1).all())  # or the network would mask its own teacher


def test_masks_that_keep_everything_are_no_masks(tmp_path):
    checkpoint = read(tmp_path, {"a.weight": WEIGHT, "a._weight_mask": torch.ones_like(WEIGHT)})
    assert not checkpoint.masks
    assert checkpoint.dense_tensors is None
    assert "masks of NVIDIA Model Optimizer that prune nothing" in checkpoint.format


def test_a_mask_that_marks_what_was_pruned_is_not_applied(tmp_path):
    checkpoint = read(tmp_path, {"a.weight": WEIGHT * MASK, "a.weight_mask": MASK == 0})
    assert torch.equal(checkpoint.tensors["a.weight"], WEIGHT * MASK)


def test_masks_of_no_weight_are_named_and_counted_nowhere(tmp_path):
    state = {"a.weight": WEIGHT, "b.weight_mask": MASK, "__nncf_hooks.post_hooks.c:weight__0.0.binary_mask": MASK[:1]}
    checkpoint = read(tmp_path, state)
    assert checkpoint.tensors.keys() == {"a.weight"}
    assert "'b.weight_mask' looks like masks, not used" in checkpoint.format
    assert "looks like masks of NNCF, not used" in checkpoint.format


def test_masks_of_whole_channels_are_named(tmp_path):
    checkpoint = read(tmp_path, {"a.weight": WEIGHT, "a.mask": torch.tensor([1.0, 0.0])})
    assert "'a.mask' looks like masks, not used" in checkpoint.format
    assert read(tmp_path, {"a.weight": WEIGHT, "mask_token": torch.zeros(1, 1, 4)}).format == "state_dict"


@pytest.mark.parametrize(
    ("masks", "name"),
    [
        ({"conv.weight": MASK}, "masks"),
        ({"module.conv.weight": MASK.bool()}, "masks"),
        ({"conv": MASK}, "mask_dict"),
        ({"conv": {"weight": MASK, "bias": None}}, "masks"),
        ({"conv.weight_mask": MASK}, "pruning_masks"),
        ({"state": {"conv.weight": {"mask": MASK}}, "groups": [{"sparsity_level": 0.5}]}, "sparsifier"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_masks_in_a_dictionary_beside_the_weights(tmp_path, masks, name, prefix):
    state = {f"{prefix}conv.weight": WEIGHT, f"{prefix}conv.bias": torch.ones(2)}
    checkpoint = read(tmp_path, {"state_dict": state, name: masks, "epoch": 3})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert torch.equal(checkpoint.dense_tensors["conv.weight"], WEIGHT)
    assert f"with masks under '{name}'" in checkpoint.format


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "<f4", ">f4", "float16", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_in_numpy_arrays(tmp_path, dtype, order):
    array = np.asarray(MASK.numpy(), dtype, order=order)
    content = {"state_dict": {"conv.weight": WEIGHT}, "masks": {"conv.weight": array}, "mask_ratio": np.float64(0.5)}
    for protocol in (2, 4, 5):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol))
        for checkpoint in (read(tmp_path, content), read_checkpoint(tmp_path / "model.pkl")):
            assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
            assert "with masks under 'masks'" in checkpoint.format
            assert "not used" not in checkpoint.format


@pytest.mark.parametrize("make", [lambda mask: mask, lambda mask: mask.numpy()])
@pytest.mark.parametrize("wrap", [lambda masks: masks, lambda masks: {"kept": masks}])
def test_bool_tensors_under_another_name_are_masks(tmp_path, make, wrap):
    masks = wrap({"conv.weight": make(MASK.bool())})
    checkpoint = read(tmp_path, {"state_dict": {"conv.weight": WEIGHT}, "keep": masks, "flags": {"a": True}})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert "with masks that are bool tensors under 'keep" in checkpoint.format
    assert "not used" not in checkpoint.format


@pytest.mark.parametrize("name", ["pruned", "is_dead"])
def test_bool_tensors_called_pruned_mark_what_was_pruned(tmp_path, name):
    checkpoint = read(tmp_path, {"state_dict": {"conv.weight": WEIGHT}, name: {"conv.weight": MASK == 0}})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)


LARGE = torch.arange(1.0, 73.0).view(4, 2, 3, 3)
KEPT = LARGE % 3 != 0


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("pruned_indices", (~KEPT).flatten().nonzero().flatten()),
        ("pruned_indices", (~KEPT).flatten().nonzero().flatten().tolist()),
        ("zero_idx", (~KEPT).nonzero().numpy()),
        ("prune_positions", (~KEPT).nonzero().t()),
        ("keep_indices", KEPT.flatten().nonzero().flatten()),
        ("remaining_idx", KEPT.nonzero()),
    ],
)
@pytest.mark.parametrize("layer", ["conv", "conv.weight"])
def test_indices_of_single_weights_are_masks(tmp_path, name, indices, layer):
    checkpoint = read(tmp_path, {"model": {"conv.weight": LARGE}, "info": {name: {layer: indices}}})
    assert torch.equal(checkpoint.tensors["conv.weight"], LARGE * KEPT)
    assert f"weights that 'info.{name}' lists" in checkpoint.format


@pytest.mark.parametrize("name", ["pruned_channels", "keep_indices", "pruned_idx"])
def test_indices_that_may_be_of_channels_are_named(tmp_path, name):
    checkpoint = read(tmp_path, {"model": {"conv.weight": WEIGHT}, name: {"conv": [0, 3, 5]}})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT)
    assert f"'{name}' beside them looks like indices of kept or pruned weights, not used" in checkpoint.format


@pytest.mark.parametrize(
    ("weight", "beside"),
    [
        (WEIGHT[:2], {"keep_channels": {"conv": [5, 9]}}),
        (torch.cat([torch.zeros_like(WEIGHT[:1]), WEIGHT[1:]]), {"pruned_channels": {"conv": [0]}}),
        (WEIGHT, {"keep_prob": 0.5, "pruned": True, "train_idx": torch.arange(90), "class_to_idx": {"conv": 3}}),
        (WEIGHT, {"pruned_channels": {"other": [0, 1]}, "zero_idx": {"conv": torch.rand(3)}}),
    ],
)
def test_indices_that_are_applied_or_of_something_else_are_not_mentioned(tmp_path, weight, beside):
    assert "ind" not in read(tmp_path, {"model": {"conv.weight": weight}, **beside}).format


def test_bool_tensors_that_fit_no_weight_are_not_mentioned(tmp_path):
    content = {"state_dict": {"conv.weight": WEIGHT}, "seen": {"class.a": torch.tensor([True, False])}}
    assert "mask" not in read(tmp_path, content).format


def test_a_mask_in_a_numpy_array_among_the_weights(tmp_path):
    checkpoint = read(tmp_path, {"conv.weight": WEIGHT, "conv.weight_mask": MASK.numpy(), "mean": np.ones(3)})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert checkpoint.tensors.keys() == {"conv.weight"}


@pytest.mark.parametrize("wrapping", ["pruning", "meta"])
@pytest.mark.parametrize("weights", ["state_dict", "net"])
def test_masks_in_a_dictionary_within_another(tmp_path, weights, wrapping):
    content = {weights: {"conv.weight": WEIGHT}, wrapping: {"step": 3, "masks": {"conv.weight": MASK}}}
    checkpoint = read(tmp_path, content)
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert f"with masks under '{wrapping}.masks'" in checkpoint.format


def test_another_networks_table_called_mask_is_no_mask(tmp_path):
    content = {"state_dict": {"conv.weight": WEIGHT}, "loss": {"criterion": {"conv.weight_mask": MASK}}}
    checkpoint = read(tmp_path, content)
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT)
    assert "mask" not in checkpoint.format


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        ([MASK[0]], "they have no names"),
        ({"conv.weight": MASK[..., 0]}, "no weight has their name and shape"),
        ({"conv.weight": MASK.numpy().astype(object)}, "they cannot be read: save them as plain tensors"),
        (torch.tensor([1.0, 0.0, 1.0]), "no weight has their name and shape"),
        ({"conv.weight": (255 * MASK).byte()}, "they hold other values than 0 and 1"),
        ({"conv.weight": torch.tensor([170, 3]).byte()}, "they look like packed bits"),
        ({"conv.weight": MASK.flatten().nonzero().flatten()}, "they look like indices, and nothing says whether of"),
    ],
)
def test_masks_that_fit_no_weight_are_named_with_the_reason(tmp_path, masks, why):
    checkpoint = read(
        tmp_path, {"state_dict": {"conv.weight": WEIGHT}, "masks": masks, "mask_ratio": torch.tensor(0.5)}
    )
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT)
    assert f"'masks' beside them looks like masks, not used: {why}" in checkpoint.format
    assert "mask_ratio" not in checkpoint.format


@pytest.mark.parametrize("masks", [[MASK, torch.ones(2)], (MASK,), {"0": MASK}])
def test_masks_without_names_are_used_in_the_only_order_that_fits(tmp_path, masks):
    other = torch.ones(3, 5)
    checkpoint = read(tmp_path, {"model": {"fc.weight": other, "conv.weight": WEIGHT}, "masks": masks})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert torch.equal(checkpoint.tensors["fc.weight"], other)
    assert "not used" not in checkpoint.format
    twice = read(tmp_path, {"model": {"a.weight": WEIGHT, "b.weight": WEIGHT}, "masks": masks})
    assert torch.equal(twice.tensors["a.weight"], WEIGHT)
    assert "their shapes fit the weights in no order, or in several" in twice.format


@pytest.mark.parametrize("key", ["conv_weight_mask", "mask_conv_weight", "conv_mask", "masks.conv_weight"])
def test_buffers_that_spell_a_weight_with_underscores(tmp_path, key):
    checkpoint = read(tmp_path, {"conv.weight": WEIGHT, key: MASK})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    in_doubt = read(tmp_path, {"a_b.weight": WEIGHT, "a.b_weight": WEIGHT, "a_b_weight_mask": MASK})
    assert torch.equal(in_doubt.tensors["a_b.weight"], WEIGHT)
    assert "not used" in in_doubt.format


def test_masks_of_channels_are_spread_over_the_weight(tmp_path):
    weight = torch.ones(4, 2, 3, 3)
    kept = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for state in ({"a.weight": weight, "a.mask": kept}, {"state_dict": {"a.weight": weight}, "masks": {"a": kept}}):
        checkpoint = read(tmp_path, state)
        assert checkpoint.tensors["a.weight"].sum((1, 2, 3)).tolist() == [18.0, 0.0, 18.0, 0.0]
        assert torch.equal(checkpoint.dense_tensors["a.weight"], weight)


def test_a_mask_whose_1_is_on_the_smallest_weights_marks_what_was_pruned(tmp_path):
    weight = torch.linspace(-1, 1, 101)[:100].view(10, 10)
    kept = weight.abs() > 0.5
    checkpoint = read(tmp_path, {"state_dict": {"a.weight": weight, "b.weight": weight + 2}, "masks": {
        "a.weight": ~kept, "b.weight": torch.zeros(10, 10)}})  # fmt: skip
    assert torch.equal(checkpoint.tensors["a.weight"], weight * kept)
    assert checkpoint.masks.keys() == {"a.weight"}
    assert "in which 1 marks pruned weights" in checkpoint.format


@pytest.mark.parametrize(
    ("computed", "keys"), [(WEIGHT * MASK, {"conv.weight"}), (WEIGHT, {"conv.weight", "conv.weight_orig"})]
)
def test_the_weight_that_a_hook_computed_may_be_saved_too(tmp_path, computed, keys):
    state = {"conv.weight_orig": WEIGHT, "conv.weight_mask": MASK, "conv.weight": computed}
    checkpoint = read(tmp_path, state)
    assert checkpoint.tensors.keys() == keys


@pytest.mark.parametrize("name", ["conv.weight.zeros", "conv.weight_zeros", "conv.m"])
def test_matrices_of_0_and_1_beside_a_weight_are_named_and_refused(tmp_path, name):
    checkpoint = read(tmp_path, {"conv.weight": WEIGHT, name: MASK})
    assert checkpoint.tensors.keys() == {"conv.weight"}
    assert f"'{name}' holds only 0 and 1" in checkpoint.format
    with pytest.raises(BadInputError) as caught:
        checkpoint.as_spelled({"conv.weight"})
    assert "multiply them into the weights" in caught.value.hint
    assert checkpoint.as_spelled({"conv.weight", name}).tensors.keys() == {"conv.weight", name}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_masks_of_layers_that_a_pruner_wrapped(tmp_path, prefix):
    state = {"conv.module.weight": WEIGHT, "conv.weight_mask": MASK, "conv.module.bias": torch.ones(2)}
    state |= {"conv.bias_mask": torch.ones(2), "norm.weight": torch.ones(2)}
    checkpoint = read(tmp_path, {prefix + key: tensor for key, tensor in state.items()})
    assert checkpoint.tensors.keys() == {"conv.weight", "conv.bias", "norm.weight"}
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)


def test_masks_in_nested_lists(tmp_path):
    masks = {"conv.weight": MASK.int().tolist(), "sizes": [1, 2, 3]}
    checkpoint = read(tmp_path, {"state_dict": {"conv.weight": WEIGHT}, "masks": masks})
    assert torch.equal(checkpoint.tensors["conv.weight"], WEIGHT * MASK)
    assert "not used" not in checkpoint.format


def test_values_of_masks_are_given_as_the_reason(tmp_path):
    checkpoint = read(tmp_path, {"conv.weight": WEIGHT, "conv.weight_mask": WEIGHT / 99})
    assert "'conv.weight_mask' looks like masks, not used: they hold other values than 0 and 1" in checkpoint.format


def test_scores_of_masks_are_named(tmp_path):
    checkpoint = read(tmp_path, {"features.module.0.weight": WEIGHT, "features.module.0.weight_scores": WEIGHT / 16})
    assert checkpoint.tensors.keys() == {"features.0.weight"}
    assert "'features.module.0.weight_scores' looks like masks, not used" in checkpoint.format


def test_the_sparsifiers_masks_name_weights_that_are_computed(tmp_path):
    """The network's own state_dict lacks them: FakeSparsity hands out none."""
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5)
    sparsifier.prepare(network, None)
    sparsifier.step()
    state = network.state_dict()
    assert not any("mask" in key for key in state)
    checkpoint = read(tmp_path, {"model": state, "sparsifier": sparsifier.state_dict()})
    assert torch.equal(checkpoint.tensors["0.weight"], network[0].weight)
    assert checkpoint.masks.keys() == {"0.weight", "1.weight"}

    alone = read(tmp_path, state)
    assert "torch.ao.pruning keeps its masks in the sparsifier's state_dict" in alone.format
    with pytest.raises(Exception, match="by a parametrization of which the file has nothing else"):
        alone.as_spelled(dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias")).keys())
    assert alone.as_spelled(state.keys()).tensors.keys() == state.keys()


def test_parametrizations_of_several_tensors_stay_as_they_are():
    state = {"a.parametrizations.weight.original0": WEIGHT, "a.parametrizations.weight.original1": WEIGHT}
    assert find_masks(state).tensors.keys() == state.keys()
    more = {
        "a.parametrizations.weight.original": WEIGHT,
        "a.parametrizations.weight.0.mask": MASK,
        "a.parametrizations.weight.1._u": torch.ones(2),
    }
    found = find_masks(more)
    assert not found.masks
    assert "looks like masks of torch.ao.pruning, not used" in found.doubts[0].text


def test_siblings_that_repeat_a_mask_do_not_prune_twice():
    found = find_masks({"a.weight": WEIGHT, "a.mask": MASK}, (Sibling("masks", {"a": 1 - MASK * 0}),))
    assert torch.equal(found.masks["a.weight"], MASK.bool())
    assert found.words[-1] == "masks under 'masks' that prune nothing"


@pytest.mark.parametrize("name", ["masks.npz", "net-mask.pt"])
def test_files_of_masks_beside_dense_weights_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "maskrcnn.pth").write_bytes(b"")
    assert f"'{name}' beside it may be its masks, not used" in read(tmp_path, {"conv.weight": WEIGHT}).format
    for pruned in ({"conv.weight": WEIGHT * MASK}, {"conv.weight": WEIGHT, "conv.mask": MASK}):
        assert "beside it" not in read(tmp_path, pruned).format
