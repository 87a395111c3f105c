"""The spellings of an architecture, what user code may do wrong, and what does not fit."""

import py_compile
import sys

import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import build, load_into, load_state


def refused(architecture, base_dir, num_classes=None):
    with pytest.raises(BadInputError) as caught:
        build(architecture, base_dir, num_classes)
    return f"{caught.value.message}\n{caught.value.hint}"


def test_factory_in_a_file(folder):
    assert build("nets.py:tiny", folder, None)[4].out_features == 3
    assert build("nets.py:tiny", folder, 7)[4].out_features == 7
    assert build("nets.py:wider", folder, 7)[4].out_features == 3


def test_factory_in_a_package(tmp_path):
    assert build("edgerecover.demo.network:digits_net", tmp_path, None).fc.out_features == 10


def test_a_file_may_import_its_neighbours_and_leaves_the_path_as_it_was(folder):
    (folder / "neighbour_of_user.py").write_text("from torch import nn\nclass Head(nn.Linear): pass\n")
    (folder / "user.py").write_text("from neighbour_of_user import Head\ndef net(): return Head(2, 3)\n")
    before, cache_prefix = list(sys.path), sys.pycache_prefix
    assert build("user.py:net", folder, None).out_features == 3
    assert sys.path == before
    assert sys.pycache_prefix == cache_prefix
    assert not (folder / "__pycache__").exists()


def test_cached_bytecode_that_differs_from_the_source_is_not_run(folder):
    source = folder / "user.py"
    source.write_text("from torch import nn\ndef net(): return nn.Linear(9, 9)\n")
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text("from torch import nn\ndef net(): return nn.Linear(2, 3)\n")
    assert build("user.py:net", folder, None).out_features == 3


def test_a_file_named_like_a_library_replaces_nothing(folder):
    (folder / "torchvision.py").write_text("from torch import nn\ndef net(): return nn.Linear(2, 3)\n")
    assert build("torchvision.py:net", folder, None).out_features == 3
    import torchvision

    assert torchvision.__file__ != str(folder / "torchvision.py")


def test_a_file_named_like_timm_is_not_what_builds_timms_networks(folder):
    (folder / "timm.py").write_text("raise SystemExit(7)\n")
    assert build("timm:test_resnet", folder, 5).num_classes == 5


def test_lazy_layers_find_their_sizes_on_the_input(tmp_path):
    (tmp_path / "lazy.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))\n"
    )
    network = build("lazy.py:net", tmp_path, None, InputSpec((2, 6, 6), (0.0,) * 2, (1.0,) * 2))
    assert network[0].weight.shape == (4, 2, 3, 3)
    assert network[1].num_features == 4
    assert network[3].in_features == 64
    assert network.training
    assert "lazy layers" in refused("lazy.py:net", tmp_path)


def test_torchvision(tmp_path):
    assert build("torchvision:resnet18", tmp_path, 10).fc.out_features == 10
    assert build("torchvision:resnet18", tmp_path, None).fc.out_features == 1000


@pytest.mark.parametrize(
    ("architecture", "part"),
    [
        ("resnet18", "did you mean torchvision:resnet18?"),
        ("torchvision:resnet19", "did you mean 'resnet1"),
        ("timm:resnet19", "did you mean 'resnet1"),
        ("timm:hf-hub:anyone/anything", "has no network"),
        ("net.py:tiny", "did you mean nets.py?"),
        ("nets.py:tinny", "did you mean tiny?"),
        ("nets.py:not_a_network", "returned int, not a torch.nn.Module"),
        ("nets.py:broken", "failed with RuntimeError: no such weights"),
        ("no_such_package_at_all:net", "failed with ModuleNotFoundError"),
        ("nets.py:", "file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or transformers:FOLDER"),
    ],
)
def test_what_cannot_be_built_is_explained(folder, architecture, part):
    assert part in refused(architecture, folder)


@pytest.mark.parametrize(
    ("returned", "part"),
    [
        ("nn.Linear(2, 3), None", "the network alone, which is now its element [0]"),
        ("nn.Linear", "it is a class: name Linear itself, or return Linear(...)"),
        ("{}", "name a function without arguments"),
    ],
)
def test_a_factory_that_returns_something_else(tmp_path, returned, part):
    (tmp_path / "nets.py").write_text(f"from torch import nn\ndef net(): return {returned}\n")
    assert part in refused("nets.py:net", tmp_path)


def test_code_that_exits_or_does_not_parse_is_reported(folder):
    (folder / "exits.py").write_text("import sys\nsys.exit(7)\n")
    (folder / "odd.py").write_text("def net(:\n")
    assert "SystemExit: 7" in refused("exits.py:net", folder)
    assert "SyntaxError" in refused("odd.py:net", folder)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "if __name__ == '__main__'"),
        ("import no_such_library_at_all\n", "install no_such_library_at_all"),
        ("from .blocks import Block\n", "--arch package.module:factory"),
        ("def net(cfg): pass\n", "when called without arguments"),
    ],
)
def test_the_hint_fits_why_a_factory_fails(tmp_path, source, hint):
    (tmp_path / "net.py").write_text(source)
    assert hint in refused("net.py:net", tmp_path)


def test_what_user_code_prints_does_not_reach_stdout(folder, capsys):
    refused("nets.py:broken", folder)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "chatter" in captured.err


# --- load_into ------------------------------------------------------------------------------------------


def test_load_into_names_the_first_differences(network):
    state = network.state_dict()
    state["4.bias"] = torch.zeros(9)
    del state["0.weight"]
    state["extra.weight"] = torch.zeros(1)
    with pytest.raises(BadInputError) as caught:
        load_into(network, state, what="model.pt (nets.py:tiny)")
    assert caught.value.message.splitlines() == [
        "model.pt (nets.py:tiny): the checkpoint does not fit the architecture",
        "  1 missing from the checkpoint: 0.weight",
        "  1 unknown to the architecture: extra.weight",
        "  1 of another shape: 4.bias: checkpoint [9], architecture [3]",
    ]


def test_load_into_counts_what_it_does_not_name(network):
    with pytest.raises(BadInputError, match=r"7 missing from the checkpoint: 0.weight, 1.weight, 1.bias and 4 more"):
        load_into(network, {}, what="model.pt")


def test_batch_counters_may_be_missing(network):
    state = {key: tensor + 1 for key, tensor in network.state_dict().items() if "num_batches" not in key}
    load_into(network, state, what="model.pt")
    assert torch.equal(network[4].bias, state["4.bias"])


def test_a_network_that_checks_its_version_loads_from_plain_tensors(tmp_path):
    network = build("torchvision:mnasnet0_5", tmp_path, 4)
    load_into(network, dict(network.state_dict()), what="model.pt")


def test_a_tied_weight_may_be_saved_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

    network = Tied()
    state = {key: torch.ones_like(t) for key, t in network.state_dict().items() if key != "second.weight"}
    load_into(network, state, what="model.pt")
    assert network.second.weight is network.first.weight
    assert bool((network.second.weight == 1).all())


def test_parametrizations_that_hide_their_masks_can_be_loaded():
    from torch.ao.pruning import WeightNormSparsifier

    network = nn.Sequential(nn.Linear(8, 4))
    WeightNormSparsifier(sparsity_level=0.5).prepare(network, None)
    weight = torch.rand(4, 8)
    load_into(network, {"0.parametrizations.weight.original": weight, "0.bias": torch.ones(4)}, what="model.pt")
    assert torch.equal(network[0].weight, weight)


class Versioned(nn.Module):
    """Asks for the version number that PyTorch keeps beside a state, as torchvision's MNASNet does."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        assert local_metadata.get("version") == 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_a_plain_dictionary_is_loaded_where_a_layer_asks_for_its_version():
    network, other = Versioned(), Versioned()
    load_state(network, {name: tensor.clone() for name, tensor in other.state_dict().items()})
    assert torch.equal(network.layer.weight, other.layer.weight)
