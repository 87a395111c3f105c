import copy
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import edgerecover
from edgerecover.api.given import TaskName, architecture_of_student, eval_data_of, network_of
from edgerecover.artifacts import Pattern, TaskKind, sha256_of
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import LiveNetwork, ModelFlags, input_of
from edgerecover.models.name.spec import resolve
from edgerecover.models.pair.networks import open_models
from edgerecover.models.read.load import read_checkpoint
from edgerecover.validation.evaluation import LabelledArrays
from tests.api.conftest import make_dense, make_pruned, state_of

FLAGS = {"shape": (1, 8, 8), "mean": (0.5,), "std": (0.25,), "pixel_range": None}


def pair(student, teacher, folder, masks=None):
    """As `recover` opens two networks in memory."""
    one, other = network_of(student, "student", folder, masks), network_of(teacher, "teacher", folder)
    flags = ModelFlags(one.live, input_of(**FLAGS))
    return open_models(one.path, flags, will_prune=False, teacher=other.path, teacher_arch=other.live)


def test_every_task_can_be_named():
    assert get_args(TaskName) == tuple(task.value for task in TaskKind if task is not TaskKind.SEVERAL)


def test_zeros_are_masks(dense, pruned, tmp_path):
    models = pair(pruned, dense, tmp_path)
    assert models.same_architecture
    assert set(models.masks) == {"3.weight", "7.weight"}
    assert torch.equal(models.masks["3.weight"], pruned[3].weight != 0)
    assert models.student is not pruned
    assert models.teacher is not dense
    assert models.student_facts.architecture_source == "in memory"


def test_masks_of_torch_that_are_still_attached_are_found(dense, tmp_path):
    student = copy.deepcopy(dense)
    torch_prune.l1_unstructured(student[3], "weight", 0.5)
    student[3].weight.sum().backward()  # computed by a hook, with a graph: copy.deepcopy alone refuses it
    models = pair(student, dense, tmp_path)
    assert models.same_architecture
    assert models.student_facts.has_masks
    assert torch.equal(models.masks["3.weight"], student[3].weight_mask.bool())
    assert "3.weight" in models.student.state_dict()
    assert "3.weight_orig" in student.state_dict()
    assert len(student[3]._forward_pre_hooks) == 1


@pytest.mark.parametrize("weight_norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed_from_others_are_copied(dense, tmp_path, weight_norm):
    with pytest.warns(FutureWarning) if weight_norm is nn.utils.weight_norm else _nothing():
        weight_norm(dense[3])
    dense[3].weight.sum().backward()
    before = state_of(dense)
    student = network_of(dense, "student", tmp_path)
    models = open_models(
        student.path, ModelFlags(student.live, input_of(**FLAGS)), will_prune=True, teacher=None
    )  # its own teacher
    assert models.student.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in models.student.state_dict().items())


class _nothing:  # noqa: N801 - a context manager
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def test_masks_that_are_given_drop_weights(dense, tmp_path):
    kept = torch.rand(dense[3].weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    models = pair(copy.deepcopy(dense), dense, tmp_path, {"3.weight": kept})
    assert torch.equal(models.masks["3.weight"], kept)
    assert bool((models.student[3].weight[~kept] == 0).all())
    assert bool((dense[3].weight[~kept] != 0).all())


def test_channels_that_are_gone_are_followed(dense, tmp_path):
    student = make_dense()
    student[0], student[1] = nn.Conv2d(1, 6, 3, 2, padding=1, bias=False), nn.BatchNorm2d(6)
    student[3] = nn.Conv2d(6, 8, 3, 2, padding=1, bias=False)
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            its = dense.state_dict()[name]
            tensor.copy_(its[tuple(slice(side) for side in tensor.shape)])
    models = pair(student, dense, tmp_path)
    assert models.same_architecture
    assert models.student_facts.sparsity.pattern is Pattern.CHANNEL


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel, lambda n: n.half()])
def test_wrappers_and_half_precision_are_taken_off(dense, pruned, tmp_path, wrap):
    models = pair(wrap(pruned), dense, tmp_path)
    assert models.student_facts.architecture == "torch.nn.modules.container:Sequential"
    assert models.student[0].weight.dtype == torch.float32
    assert models.same_architecture


def test_a_students_file_opens_in_the_teachers_network(dense, pruned, tmp_path):
    torch.save(pruned.state_dict(), tmp_path / "mine.pt")
    student, teacher = network_of(tmp_path / "mine.pt", "student", tmp_path), network_of(dense, "teacher", tmp_path)
    assert architecture_of_student(student, teacher, None) is teacher.live
    assert architecture_of_student(student, teacher, "nets.py:net") == "nets.py:net"
    (tmp_path / "mine.toml").write_text('architecture = "nets.py:net"\n')
    assert architecture_of_student(student, teacher, None) is None


def test_the_file_is_named_by_weights_alone(dense, tmp_path):
    first, again = (network_of(dense, "student", tmp_path / name).path for name in ("a", "b"))
    assert sha256_of(first) == sha256_of(again)
    with torch.no_grad():
        dense[0].weight[0, 0, 0, 0] += 1
    assert sha256_of(network_of(dense, "student", tmp_path / "c").path) != sha256_of(first)


def test_classes_are_named(dense, tmp_path):
    path = network_of(dense, "student", tmp_path, classes=("a", 'b"', "ü")).path
    flags = ModelFlags(LiveNetwork(dense), input_of(**FLAGS))
    assert open_models(path, flags, will_prune=True).classes == ("a", 'b"', "ü")


def test_classes_of_several_outputs_are_named(dense, tmp_path):
    path = network_of(dense, "student", tmp_path, classes={"a b": ("a", "b"), "age": ["old"]}).path
    said = resolve(path, ModelFlags(), teacher=None).outputs
    assert {name: one.classes for name, one in said.items()} == {"a b": ("a", "b"), "age": ("old",)}


WRONG = {
    "state": (lambda n: n.state_dict(), {}, "expected, found OrderedDict", "not its state_dict"),
    "pruned": (lambda n: edgerecover.prune(n, 0.5), {}, "found PrunedModel", "give its .model"),
    "masks of a file": (lambda _: "a.pt", {"masks": {}}, "masks= belongs to a network in memory", "holds its own"),
    "classes of a file": (lambda _: "a.pt", {"classes": ["a"]}, "classes= belongs to", "model.toml"),
    "no such mask": (
        lambda n: n,
        {"masks": {"9.weight": torch.ones(2)}},
        "for 9.weight, which is not in",
        "same shape",
    ),
    "small mask": (lambda n: n, {"masks": {"0.weight": torch.ones(2)}}, r"of shape \[8, 1, 3, 3\]", "same shape"),
    "lazy": (lambda _: nn.Sequential(nn.LazyLinear(3)), {}, "its weights cannot be read", "run the network once"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(("make", "options", "message", "hint"), WRONG.values(), ids=WRONG)
def test_what_is_no_network_is_refused(dense, tmp_path, make, options, message, hint):
    with pytest.raises(BadInputError, match=message) as caught:
        network_of(make(dense), "student", tmp_path, **options)
    assert hint in caught.value.hint


def test_a_network_that_cannot_be_copied_is_refused(dense, tmp_path):
    dense.lock = __import__("threading").Lock()
    with pytest.raises(BadInputError, match="cannot be copied: TypeError"):
        pair(dense, make_dense(), tmp_path)


def test_images_are_a_path_or_two_arrays(tmp_path):
    assert eval_data_of(None) is None
    assert eval_data_of(str(tmp_path)) == tmp_path
    given = eval_data_of(([1], [2]))
    assert isinstance(given, LabelledArrays)
    assert (given.images, given.labels) == ([1], [2])


def test_the_network_is_left_as_it_was(pruned, dense, tmp_path):
    before, hooks = state_of(pruned), [len(m._forward_hooks) for m in pruned.modules()]
    pair(pruned, dense, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruned.state_dict().items())
    assert [len(m._forward_hooks) for m in pruned.modules()] == hooks
    assert read_checkpoint(tmp_path / "student.pt").tensors.keys() == make_pruned(dense).state_dict().keys()
