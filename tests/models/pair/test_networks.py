"""Teacher and student come out of files together, or the message says why they cannot."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torchvision import models

from edgerecover.artifacts import InputSpec, Pattern
from edgerecover.demo import demo_files
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.pair.networks import inspect, open_classifier, open_models
from edgerecover.pruning import apply_masks, global_magnitude_masks

TRUSTED = ModelFlags(trust_code=True)
TOML = 'architecture = "nets.py:tiny"\n[input]\nshape = [1, 6, 6]\n'
INPUT = InputSpec((1, 6, 6), (0.0,), (1.0,))


def opened(path, flags=TRUSTED, **options):
    return open_models(path, flags, **({"will_prune": False} | options))


def refused(path, *flags, **options):
    with pytest.raises(BadInputError) as caught:
        opened(path, *flags, **options)
    return f"{caught.value.message}\n{caught.value.hint}"


@pytest.fixture
def dense_path(folder, network):
    (folder / "model.toml").write_text(TOML)
    torch.save(network.state_dict(), folder / "dense.pt")
    return folder / "dense.pt"


@pytest.fixture
def pruned_path(dense_path, network):
    apply_masks(network, global_magnitude_masks(network, 0.75))
    torch.save(network.state_dict(), dense_path.with_name("pruned.pt"))
    return dense_path.with_name("pruned.pt")


# --- what is opened -------------------------------------------------------------------------------------


def test_pruned_student_and_dense_teacher(pruned_path, dense_path):
    found = opened(pruned_path, teacher=dense_path)
    assert found.output.num_classes == 3
    assert found.architecture == "nets.py:tiny"
    assert found.input == INPUT
    assert found.student_facts.sparsity.sparsity == 0.75
    assert found.student_facts.sparsity.pattern is Pattern.UNSTRUCTURED
    assert found.teacher_facts.sparsity.pattern is Pattern.DENSE
    assert found.teacher_facts.path == str(dense_path)
    assert found.warnings == ()
    assert not found.student.training
    assert not found.teacher.training
    for name, mask in found.masks.items():
        weight = found.student.get_parameter(name)
        assert torch.equal(mask, weight != 0)
        assert torch.equal(weight, found.teacher.get_parameter(name) * mask)


def test_a_dense_model_to_be_pruned_is_its_own_teacher(dense_path):
    found = opened(dense_path, will_prune=True)
    assert found.masks == {}
    assert found.student is not found.teacher
    apply_masks(found.student, global_magnitude_masks(found.student, 0.5))
    assert bool((found.teacher[4].weight != 0).all())


def test_a_model_toml_that_names_the_model_itself_as_teacher(dense_path):
    dense_path.with_name("model.toml").write_text('teacher = "dense.pt"\n' + TOML)
    assert opened(dense_path, will_prune=True).teacher_facts.path == str(dense_path)
    assert "no teacher is given" in refused(dense_path)


def test_the_teacher_inside_masks_of_torch_prune(dense_path, network):
    dense = network[4].weight.detach().clone()
    prune.l1_unstructured(network[4], "weight", amount=0.5)
    torch.save({"model": network.state_dict()}, dense_path)
    found = opened(dense_path)
    assert torch.equal(found.teacher[4].weight, dense)
    assert torch.equal(found.student[4].weight, dense * found.masks["4.weight"])
    assert found.student_facts.has_masks
    assert found.student_facts.teacher_inside


def test_masks_made_permanent_elsewhere_leave_no_teacher_inside(dense_path, network):
    for layer in (network[0], network[4]):
        prune.l1_unstructured(layer, "weight", amount=0.5)
    prune.remove(network[0], "weight")
    torch.save({"model": network.state_dict()}, dense_path)
    assert "no teacher is given, and the dense weights are not inside" in refused(dense_path)


def test_the_prefix_model_is_put_back_when_it_is_the_networks_own(dense_path, network):
    prune.l1_unstructured(network[4], "weight", amount=0.5)
    state = {f"module.model.{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save(state, dense_path)
    dense_path.with_name("model.toml").write_text(TOML.replace("tiny", "Wrapped"))
    found = opened(dense_path)
    assert set(found.masks) == {"model.4.weight"}
    assert bool((found.teacher.model[4].weight != 0).all())


@pytest.mark.parametrize("classes", ["", 'classes = ["a", "b", "c", "d", "e"]\n'])
def test_a_factory_with_num_classes_gets_the_checkpoints(dense_path, classes):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )
    torch.save(network.state_dict(), dense_path)
    dense_path.with_name("model.toml").write_text(classes + TOML)
    assert opened(dense_path, will_prune=True).output.num_classes == 5


def test_torchvision_needs_no_word(tmp_path):
    torch.save(models.mobilenet_v3_small().state_dict(), tmp_path / "m.pt")
    found = opened(tmp_path / "m.pt", NO_FLAGS, will_prune=True)
    assert found.architecture == "torchvision:mobilenet_v3_small"
    assert found.student_facts.architecture_source == "recognised from keys and shapes"
    assert found.input.shape == (3, 224, 224)
    assert found.student_facts.input_source == "assumed: torchvision's own weights"
    assert found.output.num_classes == 1000


def test_an_input_is_not_assumed_for_other_classes_than_the_librarys(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(models.mobilenet_v3_small(num_classes=4).state_dict(), path)
    for open_it in (lambda flags: opened(path, flags, will_prune=True), lambda flags: open_classifier(path, flags)):
        with pytest.raises(
            BadInputError, match=r"\(3,224,224; .*\) may be wrong: they have 1,000 classes, .* has 4"
        ) as caught:
            open_it(NO_FLAGS)
        assert "--input-shape" in caught.value.hint
        assert "--assume" in caught.value.hint
        assert open_it(ModelFlags(assume=True)).input.shape == (3, 224, 224)
        small = InputSpec((3, 64, 64), (0.5,) * 3, (0.5,) * 3)
        assert open_it(ModelFlags(input=small)).input == small


def test_auxiliary_heads_of_googlenet_are_left_out(tmp_path):
    network = models.googlenet(init_weights=False, num_classes=4, aux_logits=True)
    torch.save(network.state_dict(), tmp_path / "m.pt")
    found = opened(tmp_path / "m.pt", ModelFlags(input=InputSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3)), will_prune=True)
    assert found.output.num_classes == 4


def test_a_sparse_teacher_is_a_warning(pruned_path):
    teacher = pruned_path.with_name("teacher.pt")
    teacher.write_bytes(pruned_path.read_bytes())
    (warning,) = opened(pruned_path, teacher=teacher).warnings
    assert "75.0% zeros" in warning


WITH_STATISTICS = """
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x):
        return {how}

def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), {norm}, nn.ReLU(), Scaled(), nn.Flatten(), nn.Linear(144, 3)
    )
"""


@pytest.mark.parametrize(
    ("norm", "how", "num_batch_norms", "warned"),
    [
        ("FrozenBatchNorm2d(4)", "x * self.running_var.view(1, 4, 1, 1)", 1, True),
        ("nn.Identity()", "x * self.running_var.view(1, 4, 1, 1)", 0, True),
        (
            "nn.SyncBatchNorm(4)",
            "(x - self.running_mean.view(4, 1, 1)) / (self.running_var + 1e-5).view(4, 1, 1) ** 0.5",
            2,
            False,
        ),
    ],
)
def test_the_statistics_that_are_used_are_counted_and_the_others_named(folder, norm, how, num_batch_norms, warned):
    source = WITH_STATISTICS.format(how=how, norm=norm)
    (folder / "norms.py").write_text(source)
    (folder / "model.toml").write_text('architecture = "norms.py:net"\n[input]\nshape = [1, 6, 6]\n')
    space = {}
    exec(source, space)
    torch.save(space["net"]().state_dict(), folder / "m.pt")
    found = opened(folder / "m.pt", will_prune=True)
    assert found.teacher_facts.num_batch_norms == num_batch_norms
    assert [("eval mode: 3 (Scaled)." in warning) for warning in found.warnings] == [True] * warned


def test_the_demo_opens_without_trust():
    files = demo_files()
    found = opened(files.pruned, NO_FLAGS)
    assert found.output.num_classes == 10
    assert found.teacher_facts.path.endswith("dense.safetensors")
    assert found.classes[3] == "3"


# --- inspect --------------------------------------------------------------------------------------------


def test_inspect_with_an_architecture(pruned_path, network):
    facts = inspect(pruned_path, TRUSTED)
    assert facts.num_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert facts.num_batch_norms == 1
    assert facts.num_classes == 3
    assert facts.architecture_source == "model.toml"
    assert [layer.name for layer in facts.sparsity.layers] == ["0.weight", "4.weight"]
    assert not facts.has_masks


def test_inspect_says_what_a_network_returns_besides(dense_path):
    facts = inspect(odd(dense_path, '{"kind": logits, "levels": [x, x]}'), TRUSTED)
    (warning,) = facts.warnings
    assert "left out: levels_0 [2, 1, 6, 6], levels_1 [2, 1, 6, 6]" in warning
    assert inspect(odd(dense_path), TRUSTED).warnings == ()


def test_inspect_without_an_architecture(pruned_path, network):
    pruned_path.with_name("model.toml").unlink()
    facts = inspect(pruned_path, NO_FLAGS)
    assert facts.architecture is None
    assert facts.architecture_source == "unknown"
    assert facts.num_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert facts.sparsity.sparsity == 0.75
    assert facts.num_classes is None


# --- what is refused ------------------------------------------------------------------------------------


def test_untrusted_code(pruned_path, dense_path):
    assert "have not trusted" in refused(pruned_path, NO_FLAGS, teacher=dense_path)


def test_no_architecture_and_no_input(dense_path):
    toml = dense_path.with_name("model.toml")
    toml.write_text('architecture = "nets.py:tiny"\n')
    assert "--input-shape" in refused(dense_path, will_prune=True)
    toml.unlink()
    message = refused(dense_path, will_prune=True)
    assert "--arch file.py:factory" in message
    assert "model.toml" in message


def test_no_teacher(pruned_path, dense_path):
    message = refused(pruned_path)
    assert "75.0% of the weights are zero, no teacher is given" in message
    assert "zero, its teacher is the same file" in refused(pruned_path, teacher=pruned_path)
    assert "--teacher" in message
    assert "--pattern unstructured --sparsity 0.75" in refused(dense_path)
    assert "no teacher is given" in refused(pruned_path, will_prune=True)
    assert "teacher" in refused(pruned_path, teacher=dense_path.with_name("absent.pt"))


def test_a_checkpoint_of_another_architecture(dense_path):
    """Narrower than its architecture it may be channel-pruned, and lacks a teacher; wider it cannot be."""
    state = torch.load(dense_path, weights_only=True)
    dense_path.with_name("model.toml").write_text(TOML.replace("tiny", "wider"))
    assert "whole channels are gone, no teacher is given" in refused(dense_path, will_prune=True)
    state["0.weight"] = torch.ones(6, 1, 3, 3)
    torch.save(state, dense_path)
    message = refused(dense_path, will_prune=True)
    assert "does not fit the architecture" in message
    assert "0.weight: checkpoint [6, 1, 3, 3], architecture [5, 1, 3, 3]" in message


def test_a_student_and_a_teacher_given_the_wrong_way_round(dense_path, pruned_path):
    message = refused(dense_path, teacher=pruned_path)
    assert "dense.pt: is dense, and" in message
    assert "they may be the wrong way round" in message


def test_a_teacher_of_another_class_count(pruned_path):
    other = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 7))
    torch.save(other.state_dict(), pruned_path.with_name("other.pt"))
    message = refused(pruned_path, teacher=pruned_path.with_name("other.pt"))
    assert "has 7 classes, the student 3" in message


def test_a_teacher_of_an_unknown_architecture(pruned_path):
    other = nn.Sequential(nn.Conv2d(1, 9, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    torch.save(other.state_dict(), pruned_path.with_name("other.pt"))
    message = refused(pruned_path, teacher=pruned_path.with_name("other.pt"))
    assert "is of another architecture, the student is nets.py:tiny" in message
    assert "0.weight: checkpoint [9, 1, 3, 3], architecture [4, 1, 3, 3]" in message
    assert "--teacher-arch" in message


def test_an_input_that_does_not_fit(dense_path):
    message = refused(
        dense_path, ModelFlags(input=InputSpec((3, 6, 6), (0.0,) * 3, (1.0,) * 3), trust_code=True), will_prune=True
    )
    assert "on images of shape [3, 6, 6] (from --input-shape): the forward pass failed with RuntimeError" in message


@pytest.mark.parametrize(
    ("returned", "advice"),
    [
        ("super().forward(x, 3)", "check the input's shape"),
        ("(lambda images, age: images)(x)", "the network gets images alone"),
        ('logits.to("cuda:99")', "let the forward use x.device"),
        ("logits.reshape(1, 3)", "a batch size is written into its forward"),
    ],
)
def test_the_hint_fits_why_a_forward_fails(dense_path, returned, advice):
    with pytest.raises(BadInputError) as caught:
        opened(odd(dense_path, returned), will_prune=True)
    assert advice in caught.value.hint


def test_a_network_that_is_no_classifier(dense_path):
    dense_path.with_name("model.toml").write_text(TOML.replace("tiny", "pair"))
    assert "found tuple of [2, 1, 6, 6], [2, 1, 6, 6]" in refused(dense_path, will_prune=True)


ODD = """
import torch
from torch import nn

class Net(nn.Sequential):
    def forward(self, x):
        logits = super().forward(x)
        return {returned}

def net():
    network = Net(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
    )
    return {made}
"""


def odd(dense_path, returned="logits", made="network"):
    dense_path.with_name("odd.py").write_text(ODD.format(returned=returned, made=made))
    dense_path.with_name("model.toml").write_text(TOML.replace("nets.py:tiny", "odd.py:net"))
    return dense_path


@pytest.mark.parametrize(
    ("returned", "advice"),
    [
        ("logits[0, 0]", "one row of logits per image"),
        ("'cat'", "returns the logits alone"),
    ],
)
def test_what_is_returned_instead_of_logits_is_named(dense_path, returned, advice):
    assert advice in refused(odd(dense_path, returned), will_prune=True)


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit")  # it is deprecated, and people's factories still use it
@pytest.mark.parametrize(("made", "where"), [("network", ""), ("nn.Sequential(network)", "its part '0'")])
def test_a_scripted_network_is_refused(dense_path, made, where):
    scripted = "torch.jit.script(nn.Sequential(*network))"
    message = refused(odd(dense_path, made=made.replace("network", scripted)), will_prune=True)
    assert f"{where or 'what it makes'} is a ScriptModule" in message
    assert "without torch.jit.script" in message


def test_a_network_that_ends_in_softmax_gives_logits(dense_path, network):
    odd(dense_path, "logits.softmax(1)")
    images_NCHW = torch.rand(4, 1, 6, 6)
    found = opened(dense_path, will_prune=True)
    expected_NK = network.eval()(images_NCHW).log_softmax(1)
    for each in (found.teacher, found.student):
        assert torch.allclose(each(images_NCHW), expected_NK, atol=1e-5)


def test_class_names_that_do_not_match(dense_path):
    dense_path.with_name("model.toml").write_text('classes = ["a", "b"]\n' + TOML)
    assert "it gives 3 classes, but model.toml names 2" in refused(dense_path, will_prune=True)
