"""Pickled modules give the state_dict they would have given, and nothing is imported."""

import io

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgerecover.models.read.modules import classes_of, is_module, state_of
from edgerecover.models.read.records import PickleError
from edgerecover.models.read.torch_files import read_stream, read_zip
from edgerecover.models.read.zips import Archive


class Net(nn.Module):
    """With all that a state_dict does and does not hold."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, bias=False)})
        self.again = self.body["a"]
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.register_parameter("absent", None)
        self.plain = torch.ones(7)


def module_of(network, zip_format=True):
    buffer = io.BytesIO()
    torch.save(network, buffer, _use_new_zipfile_serialization=zip_format)
    size = len(buffer.getvalue())
    buffer.seek(0)
    return read_zip(Archive(buffer, size)) if zip_format else read_stream(buffer, size)


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("make", [Net, lambda: prune.random_unstructured(nn.Conv2d(1, 2, 3), "weight", 0.5)])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_the_state_is_that_of_state_dict(make, zip_format):
    network = make()
    content = module_of(network, zip_format)
    found = {key: content.reader.tensor(record) for key, record in state_of(content.root).items()}
    assert list(found) == list(network.state_dict())
    assert all(torch.equal(found[key], tensor) for key, tensor in network.state_dict().items())


def test_classes_are_named_outermost_first():
    assert classes_of(module_of(Net()).root)[0].endswith("Net")
    assert "torch.nn.modules.linear.Linear" in classes_of(module_of(Net()).root)


def test_graph_modules_are_read_like_others():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    content = module_of(torch.fx.symbolic_trace(network))
    assert is_module(content.root)
    assert state_of(content.root).keys() == network.state_dict().keys()
    assert classes_of(content.root)[0] == "torch.fx.graph_module.GraphModule"


def test_what_is_no_module():
    assert not is_module({"_modules": {}, "_parameters": {}})
    assert state_of(7) == {}


def test_a_module_in_itself_and_modules_that_double_end():
    content = module_of(Net())
    content.root.state["_modules"]["self"] = content.root
    with pytest.raises(PickleError, match="more modules"):
        state_of(content.root)
    level = module_of(nn.Linear(1, 1)).root
    for _ in range(60):
        above = module_of(nn.Sequential()).root
        above.state["_modules"].update(a=level, b=level)
        level = above
    with pytest.raises(PickleError, match="than any network has"):
        state_of(level)


def test_pruned_modules_keep_their_masks():
    layer = prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    state = state_of(module_of(layer).root)
    assert set(state) == {"bias", "weight_orig", "weight_mask"}
