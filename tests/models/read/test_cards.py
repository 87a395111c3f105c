"""What config.json and preprocessor_config.json say is used where it is of the weights; the user's word wins."""

import json

import pytest
import torch
from safetensors.torch import save_file

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.pair.networks import inspect, open_models
from edgerecover.models.read.cards import PartialInput, read_card

HALF = (0.5, 0.5, 0.5)
IMAGES = {"size": {"height": 32, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_normalize": True}
VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "num_channels": 3, "image_size": 48}


def card_of(folder, config, processor=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return read_card(folder)


def input_of(folder, processor, config=VIT):
    said = card_of(folder, config, processor).input
    return said.complete(None)


def test_a_card_with_a_byte_order_mark(tmp_path):
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(VIT), encoding="utf-8")
    assert read_card(tmp_path).source == "config.json: ViTForImageClassification"


# --- transformers: what its image processors hand to the network -------------------------------------------------


def test_an_image_processor_in_full(tmp_path):
    card = card_of(tmp_path / "vit", VIT | {"id2label": {"1": "dog", "0": "cat"}}, IMAGES)
    assert card.architecture == "transformers:vit"
    assert card.base_dir == tmp_path
    assert card.source == "config.json: ViTForImageClassification"
    assert card.input_source == "preprocessor_config.json"
    assert card.classes == ("cat", "dog")
    assert card.input.complete(None) == InputSpec((3, 32, 24), HALF, (0.25,) * 3)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ({"size": 64}, (3, 64, 64)),
        ({"size": {"shortest_edge": 64}}, (3, 64, 64)),
        (
            {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 48}, "do_center_crop": True},
            (3, 56, 48),
        ),
        ({"size": {"shortest_edge": 64}, "crop_size": 56, "do_center_crop": False}, (3, 64, 64)),
    ],
)
def test_sizes_as_the_processors_write_them(tmp_path, size, shape):
    assert input_of(tmp_path, IMAGES | size).shape == shape


@pytest.mark.parametrize(
    ("change", "spec"),
    [
        ({"do_rescale": False}, InputSpec((3, 32, 24), HALF, (0.25,) * 3, (0.0, 255.0))),
        ({"rescale_factor": 1 / 127.5}, InputSpec((3, 32, 24), HALF, (0.25,) * 3, (0.0, 2.0))),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, InputSpec((3, 32, 24), HALF, (0.25,) * 3, (-1.0, 1.0))),
        ({"do_normalize": False}, InputSpec((3, 32, 24), (0.0,) * 3, (1.0,) * 3)),
        ({"include_top": True}, InputSpec((3, 32, 24), HALF, (0.0625,) * 3)),
        ({"image_mean": 0.5, "image_std": 0.25}, InputSpec((3, 32, 24), HALF, (0.25,) * 3)),
    ],
)
def test_values_of_pixels_as_the_processors_make_them(tmp_path, change, spec):
    assert input_of(tmp_path, IMAGES | change) == spec


def test_a_processor_that_never_normalises_holds_a_mean_all_the_same(tmp_path):
    mobilevit = {key: value for key, value in IMAGES.items() if key != "do_normalize"}
    mobilevit |= {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}
    card = card_of(tmp_path, VIT, mobilevit)
    assert card.input.complete(None) == InputSpec((3, 32, 24), (0.0,) * 3, (1.0,) * 3)
    assert card.input_source == "preprocessor_config.json, channels blue, green, red"


@pytest.mark.parametrize(
    "unsure", [{"do_normalize": None}, {"rescale_factor": "1/255"}, {"image_std": [0.5, 0.0, 0.5]}]
)
def test_what_is_not_known_is_not_guessed(tmp_path, unsure):
    assert input_of(tmp_path, IMAGES | unsure) is None


def test_without_a_processor_the_size_alone_is_known(tmp_path):
    card = card_of(tmp_path, VIT)
    assert card.input == PartialInput((3, 48, 48))
    assert card.input.complete(InputSpec((3, 8, 8), HALF, HALF)) == InputSpec((3, 48, 48), HALF, HALF)


def test_a_processor_inside_another(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": IMAGES}))
    assert card_of(tmp_path, VIT).input.mean == HALF


# --- labels, and cards of others ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [{"0": "LABEL_0", "1": "LABEL_1"}, {"0": "a", "2": "b"}, {"0": "crane", "1": "crane"}, {"0": 1}, [], "ab"]
)
def test_labels_that_name_nothing(tmp_path, labels):
    assert card_of(tmp_path, VIT | {"id2label": labels}, IMAGES).classes is None


@pytest.mark.parametrize(
    "content",
    [
        {"architecture": "resnet18", "epochs": 90},
        {"architecture": "../resnet18", "input_size": [3, 64, 64]},
        {"architecture": 3},
        {"model_type": "vit"},
        [1],
        "{",
    ],
)
def test_a_config_of_another_program_says_nothing(tmp_path, content):
    (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert read_card(tmp_path) is None


# --- timm --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder as timm writes it, its input and classes not those of timm's own weights."""
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("work") / "hub"
    overlay = {"mean": HALF, "std": (0.25,) * 3, "input_size": (3, 48, 40)}
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=overlay)
    labels = {"label_names": ["a", "b", "c"]}
    timm.models.save_for_hf(network, folder, model_config=labels, safe_serialization=True)
    return folder


def looked_at(path, arch=None, input=None):
    return inspect(path, ModelFlags(arch, input))


TIMM_INPUT = InputSpec((3, 48, 40), HALF, (0.25,) * 3)


@pytest.mark.parametrize("arch", [None, "timm:test_resnet"])
def test_a_folder_of_timm(hub, arch):
    for path in (hub, hub / "model.safetensors"):
        facts = looked_at(path, arch)
        assert facts.path == str(hub / "model.safetensors")
        assert (facts.architecture, facts.num_classes) == ("timm:test_resnet", 3)
        assert facts.architecture_source == ("--arch" if arch else "config.json")
        assert (facts.input, facts.input_source) == (TIMM_INPUT, "config.json")
        assert facts.classes_source == "config.json"


def test_flags_and_model_toml_win_over_the_card(hub, tmp_path):
    flags = InputSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3)
    assert looked_at(hub, input=flags).input == flags
    copy = tmp_path / "hub"
    copy.mkdir()
    for file in hub.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.toml").write_text('classes = ["x", "y", "z"]\n[input]\nshape = [3, 32, 32]\n')
    facts = looked_at(copy)
    assert (facts.architecture_source, facts.input_source, facts.classes_source) == (
        "config.json", "model.toml; mean and std of config.json", "model.toml"
    )  # fmt: skip


def test_a_pruned_file_and_its_teachers_folder(hub, tmp_path):
    from safetensors.torch import load_file

    state = load_file(hub / "model.safetensors")
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"] * (torch.arange(3) != 1)
    save_file(state, tmp_path / "pruned.safetensors")
    models = open_models(tmp_path / "pruned.safetensors", NO_FLAGS, teacher=hub, will_prune=False)
    assert models.same_architecture
    assert models.input == TIMM_INPUT
    assert models.classes == ("a", "b", "c")
    assert models.student_facts.architecture_source == "config.json of the teacher"
    assert list(models.masks) == ["layer2.0.conv1.weight"]


def test_a_file_that_the_card_is_not_of_is_left_alone(hub, tmp_path, network):
    folder = tmp_path / "hub"
    card_of(folder, json.loads((hub / "config.json").read_text()))
    save_file(network.state_dict(), folder / "other.safetensors")
    facts = looked_at(folder / "other.safetensors")
    assert (facts.architecture, facts.input, facts.classes_source) == (None, None, None)


def test_a_card_of_a_much_larger_network_than_the_weights(tmp_path, network):
    pytest.importorskip("timm")
    card_of(tmp_path, {"architecture": "vit_giant_patch14_224", "input_size": [3, 224, 224], "mean": [0.5]})
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(BadInputError, match=r"config\.json describes a network of"):
        looked_at(tmp_path)


def test_options_of_the_network_are_used_and_files_are_not(hub, tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_vit", num_classes=3, img_size=64, depth=2)
    config = {
        "architecture": "test_vit",
        "model_args": {"img_size": 64, "depth": 2, "num_classes": 3, "pretrained": True, "checkpoint_path": "evil.pt"},
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": list(HALF), "std": list(HALF)},
    }
    assert card_of(tmp_path, config).options == {"img_size": 64, "depth": 2}
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    assert looked_at(tmp_path).num_classes == 3
