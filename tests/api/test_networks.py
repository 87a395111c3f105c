import pytest
import torch
from torch import nn

import edgerecover
from edgerecover.errors import BadInputError
from tests.api.conftest import make_dense, state_of


def test_inspect_says_what_the_command_says(pruned, tmp_path):
    found = edgerecover.inspect(pruned, input_shape=(1, 8, 8))
    assert found.facts.num_classes == 3
    assert found.facts.path == "in memory"
    assert 0.3 < found.sparsity < 0.6
    assert "Sparsity per layer" in str(found)
    assert found._repr_html_().startswith("<pre>")
    assert repr(found).startswith("<Inspection of torch.nn.modules.container:Sequential: ")
    torch.save(pruned.state_dict(), tmp_path / "a.pt")
    assert edgerecover.inspect(tmp_path / "a.pt").sparsity == found.sparsity


def test_the_input_may_be_any_numbers(dense):
    found = edgerecover.inspect(dense, input_shape=torch.Size((1, 8, 8)), mean=torch.tensor([0.5]), std=[0.25])
    assert (found.facts.input.shape, found.facts.input.mean, found.facts.input.std) == ((1, 8, 8), (0.5,), (0.25,))


def test_inspect_takes_a_task(dense):
    assert edgerecover.inspect(dense, input_shape=(1, 8, 8), task="embedding").facts.output.task == "embedding"
    with pytest.raises(BadInputError, match="does not fit segmentation") as caught:
        edgerecover.inspect(dense, input_shape=(1, 8, 8), task="segmentation")
    assert caught.value.hint.endswith(
        "multi-label, embedding and regression: name it with task=, or as task in model.toml"
    )


def test_inspect_needs_a_file_that_is_there():
    with pytest.raises(BadInputError, match=r"nothere\.pt does not exist"):
        edgerecover.inspect("nothere.pt")


def test_prune_makes_a_new_network(dense):
    before = state_of(dense)
    pruned = edgerecover.prune(dense, 0.75)
    assert type(pruned.model) is nn.Sequential
    assert pruned.sparsity.sparsity == pytest.approx(0.75, abs=0.01)
    assert torch.equal(pruned.masks["3.weight"], pruned.model[3].weight != 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert "weights are zero" in repr(pruned)


def test_prune_to_two_four_needs_no_fraction(dense):
    assert edgerecover.prune(dense, pattern="2:4").sparsity.pattern == "2:4"


def test_prune_channels(dense):
    pytest.importorskip("torch_pruning")
    pruned = edgerecover.prune(dense, 0.5, pattern="channel", input_shape=(1, 8, 8))
    assert pruned.macs_kept < 0.7
    assert pruned.masks == {}
    assert pruned.model[3].weight.numel() < dense[3].weight.numel()
    assert pruned.model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_prune_says_what_is_missing(dense):
    with pytest.raises(BadInputError, match=r"pattern='unstructured' needs sparsity=") as caught:
        edgerecover.prune(dense)
    assert "sparsity=0.75" in caught.value.hint


class Ending(nn.Module):
    """A user's own class, with its own outputs."""

    def __init__(self):
        super().__init__()
        self.body = make_dense()

    def forward(self, images_NCHW):
        return {"logits": self.body(images_NCHW), "images": images_NCHW}


def test_a_network_keeps_its_own_class_and_outputs():
    pruned = edgerecover.prune(Ending(), 0.5, input_shape=(1, 8, 8))
    assert type(pruned.model) is Ending
    assert set(pruned.model(torch.zeros(1, 1, 8, 8))) == {"logits", "images"}
