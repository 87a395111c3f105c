"""Image classifiers as save_pretrained writes them: the weights' names become the modules', the output the logits."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.models.build.transformers_folders import build_from_folder
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.pair.networks import inspect, open_models, open_network

SMALL = {"num_labels": 3, "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
FAMILIES = {
    "ViT": SMALL | {"num_attention_heads": 2, "intermediate_size": 16},
    "ResNet": {"num_labels": 3, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "ConvNext": {"num_labels": 3, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "Swin": {"num_labels": 3, "image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [2],
             "window_size": 2},
}  # fmt: skip
PROCESSOR = {
    "size": {"height": 16, "width": 16},
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
    "do_normalize": True,
}
INPUT = InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3)


def saved(folder, family):
    """A folder of the family's classifier with fresh weights, and that classifier."""
    transformers = pytest.importorskip("transformers", reason="the extra edgerecover[transformers] is not installed")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    network = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return network


def opened(path, flags=NO_FLAGS):
    return open_network(path, flags)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_gives_the_librarys_own_logits(tmp_path, family):
    theirs = saved(tmp_path / "hub", family)
    network, input = opened(tmp_path / "hub")
    assert input == INPUT
    images_NCHW = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(images_NCHW), theirs(images_NCHW).logits)
    assert network.state_dict().keys() == theirs.state_dict().keys()


def test_what_inspect_says(tmp_path):
    saved(tmp_path / "hub", "ViT")
    facts = inspect(tmp_path / "hub", NO_FLAGS)
    assert (facts.architecture, facts.num_classes) == ("transformers:hub", 3)
    assert facts.architecture_source == "config.json: ViTForImageClassification"
    assert facts.input_source == "preprocessor_config.json"


def test_a_pruned_state_dict_and_a_pruned_file_have_the_same_masks(tmp_path):
    theirs = saved(tmp_path / "hub", "ViT")
    torch.save(theirs.state_dict(), tmp_path / "pruned.pt")  # the modules' names
    state = load_file(tmp_path / "hub" / "model.safetensors")  # the file's, which since transformers 5.1 differ
    named = {}
    for path, keys in (("pruned.pt", theirs.state_dict()), ("pruned.safetensors", state)):
        key = next(key for key in keys if key.endswith(("k_proj.weight", "key.weight")))
        zeroed = dict(keys) | {key: keys[key] * (torch.arange(16) % 2)}
        (torch.save if path.endswith(".pt") else save_file)(zeroed, tmp_path / path)
        models = open_models(tmp_path / path, NO_FLAGS, teacher=tmp_path / "hub", will_prune=False)
        assert models.same_architecture
        assert models.input == INPUT
        named[path] = {name: int((~mask).sum()) for name, mask in models.masks.items()}
    assert named["pruned.pt"] == named["pruned.safetensors"]
    assert list(named["pruned.pt"].values()) == [128]


def test_masks_of_torch_are_given_the_modules_names(tmp_path):
    theirs = saved(tmp_path / "hub", "ViT")
    state = load_file(tmp_path / "hub" / "model.safetensors")
    key = next(key for key in state if key.endswith("key.weight"))
    state[f"{key}_orig"], state[f"{key}_mask"] = state[key], (torch.arange(16) % 4 != 0).float().expand(16, 16).clone()
    del state[key]
    save_file(state, tmp_path / "hub" / "model.safetensors")
    models = open_models(tmp_path / "hub", NO_FLAGS, will_prune=False)
    (name,) = models.masks
    assert name in theirs.state_dict()
    assert int((~models.masks[name]).sum()) == 64


def test_an_architecture_by_its_folder(tmp_path):
    theirs = saved(tmp_path / "hub", "ResNet")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    torch.save({"state_dict": theirs.state_dict()}, elsewhere / "trained.pt")
    network, input = opened(elsewhere / "trained.pt", ModelFlags(f"transformers:{tmp_path / 'hub'}"))
    assert input == INPUT
    assert type(network).__name__ == "ResNetForImageClassification"


def test_weights_of_other_shapes_than_the_card_says_are_named(tmp_path):
    saved(tmp_path, "ViT")
    state = load_file(tmp_path / "model.safetensors")
    save_file(state | {"classifier.bias": torch.zeros(4)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInputError, match=r"classifier\.bias"):
        opened(tmp_path)


def test_the_network_exports(tmp_path):
    saved(tmp_path / "hub", "Swin")
    network, input = opened(tmp_path / "hub")
    program = torch.export.export(network, (torch.zeros(1, *input.shape),))
    assert tuple(program.module()(torch.zeros(1, *input.shape)).shape) == (1, 3)


def test_what_is_no_classifier_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(BadInputError, match="transformers' ViTModel, not an image classifier"):
        build_from_folder(tmp_path)
    with pytest.raises(BadInputError, match=r"holds no config\.json"):
        build_from_folder(tmp_path / "no-such")


def test_code_of_the_folder_is_never_run(tmp_path):
    pytest.importorskip("transformers", reason="the extra edgerecover[transformers] is not installed")
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('was run')\n")
    own = {"AutoModelForImageClassification": "modeling_own.OwnForImageClassification"}
    config = {"model_type": "own", "architectures": ["OwnForImageClassification"], "auto_map": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInputError, match="never run"):
        build_from_folder(tmp_path)


def test_without_transformers_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingError) as caught:
        build_from_folder(tmp_path)
    assert caught.value.hint == pip_line("install 'edgerecover[transformers]'")


def test_a_segmentation_network_gives_maps_of_scores(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra edgerecover[transformers] is not installed")
    sizes = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16]}
    sizes |= {"num_attention_heads": [1, 2], "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2]}
    config = transformers.SegformerConfig(**sizes, decoder_hidden_size=16, num_labels=5)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    facts = inspect(tmp_path, ModelFlags(input=InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)))
    assert facts.output == OutputSpec(TaskKind.SEGMENTATION, (5, 16, 16))
