import pytest
import torch
from torch import nn

from edgerecover.commands.prune import prune_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.pruning import pruning_from_flags

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
"""


@pytest.fixture
def pruned(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    with torch.no_grad():
        network[0].weight *= 1e-3
    torch.save(network.state_dict(), tmp_path / "dense.pt")
    flags = ModelFlags(f"{tmp_path / 'nets.py'}:net")
    return lambda pattern: prune_file(
        tmp_path / "dense.pt", tmp_path / f"{pattern}.pt", pruning_from_flags(pattern, 0.5), flags
    )


def test_a_layer_that_pruning_emptied_is_named_at_once(pruned):
    (note,) = pruned("unstructured").notes
    assert note.startswith("0.weight has no weight left")
    assert "--pattern layerwise" in note


def test_where_every_layer_keeps_some_there_is_nothing_to_say(pruned):
    assert pruned("layerwise").notes == ()
