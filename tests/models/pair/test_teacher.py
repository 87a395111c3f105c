"""Who is a student's teacher, and in which architecture: what was said, what fits, what keys and shapes tell."""

import pytest
import torch
from torch import nn
from torchvision import models

from edgerecover.artifacts import InputSpec, Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import build
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import inspect, open_models

INPUT_TABLE = "[input]\nshape = [1, 6, 6]\n"
TRUSTED = ModelFlags(trust_code=True)
TOML = 'architecture = "nets.py:wider"\nteacher = "dense.pt"\n'
"""Of a student that has five channels; `tiny` has four."""


def opened(path, flags=TRUSTED, **options):
    return open_models(path, flags, **({"will_prune": False} | options))


def refused(path, *flags, **options):
    with pytest.raises(BadInputError) as caught:
        opened(path, *flags, **options)
    return f"{caught.value.message}\n{caught.value.hint}"


@pytest.fixture
def student_path(folder, network):
    """`network` is `tiny`, and the teacher."""
    (folder / "model.toml").write_text(TOML + INPUT_TABLE)
    torch.save(network.state_dict(), folder / "dense.pt")
    torch.save(build("nets.py:wider", folder, None).state_dict(), folder / "model.pt")
    return folder / "model.pt"


def is_distilled(found, network):
    """The teacher is `network`, and the student is compared with it by outputs alone."""
    assert not found.same_architecture
    assert torch.equal(found.teacher[4].weight, network[4].weight)
    assert not found.teacher.training
    assert found.student[0].out_channels == 5
    assert found.student_facts.architecture == "nets.py:wider"
    assert found.student_facts.sparsity.pattern is Pattern.DENSE
    assert found.masks == {}
    assert "of another architecture than its teacher" in found.warnings[0]


def test_the_flag_names_its_architecture(student_path, network, monkeypatch, tmp_path):
    found = opened(student_path, teacher_arch=f"{student_path.parent}/nets.py:tiny")
    is_distilled(found, network)
    assert found.teacher_facts.architecture_source == "--teacher-arch"
    monkeypatch.chdir(tmp_path)
    is_distilled(opened(student_path, teacher_arch="project/nets.py:tiny"), network)


def test_model_toml_names_its_architecture(student_path, network):
    (student_path.with_name("model.toml")).write_text(TOML + 'teacher_architecture = "nets.py:tiny"\n' + INPUT_TABLE)
    found = opened(student_path)
    is_distilled(found, network)
    assert found.teacher_facts.architecture_source == "model.toml"
    assert found.teacher_facts.architecture == "nets.py:tiny"


def test_its_own_toml_names_its_architecture(student_path, network):
    student_path.with_name("dense.toml").write_text('architecture = "nets.py:tiny"\n')
    found = opened(student_path)
    is_distilled(found, network)
    assert found.teacher_facts.architecture_source == "dense.toml"


def test_model_toml_of_another_folder_is_asked_where_the_students_does_not_fit(student_path, network, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "nets.py").write_text((student_path.with_name("nets.py")).read_text())
    teacher = student_path.with_name("dense.pt").rename(elsewhere / "dense.pt")
    assert "--teacher-arch" in refused(student_path, teacher=teacher)
    (elsewhere / "model.toml").write_text('architecture = "nets.py:tiny"\n')
    is_distilled(opened(student_path, teacher=teacher), network)
    (elsewhere / "model.toml").write_text('architecture = "nets.py:no_such"\n')
    torch.save(opened(student_path, teacher=student_path, will_prune=True).student.state_dict(), teacher)
    assert opened(student_path, teacher=teacher).same_architecture


def test_torchvision_tells_it_by_keys_and_shapes(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "dense.pt")
        torch.save(models.shufflenet_v2_x0_5(num_classes=3).state_dict(), tmp_path / "model.pt")
    small = InputSpec((3, 64, 64), (0.5,) * 3, (0.25,) * 3)
    found = opened(tmp_path / "model.pt", ModelFlags(input=small, trust_code=True), teacher=tmp_path / "dense.pt")
    assert not found.same_architecture
    assert found.architecture == "torchvision:shufflenet_v2_x0_5"
    assert found.teacher_facts.architecture == "torchvision:squeezenet1_1"
    assert "torchvision:squeezenet1_1, recognised from keys and shapes" in found.warnings[0]


def test_the_same_network_under_another_name_is_the_same(student_path, network):
    (student_path.with_name("same.py")).write_text(student_path.with_name("nets.py").read_text())
    student_path.with_name("model.toml").write_text(TOML.replace("wider", "tiny") + INPUT_TABLE)
    with torch.no_grad():
        network[4].weight[0] = 0
    torch.save(network.state_dict(), student_path)
    found = opened(student_path, teacher_arch=f"{student_path.parent}/same.py:tiny")
    assert found.same_architecture
    assert found.warnings == ()


def test_a_narrower_definition_is_pruned_where_its_filters_are_the_teachers(student_path):
    """Of `wider`, `tiny` may hold four of five channels; `test_channels.py` has the other cases."""
    student_path.with_name("model.toml").write_text(TOML.replace("wider", "tiny") + INPUT_TABLE)
    torch.manual_seed(0)
    wider, tiny = (build(f"nets.py:{name}", student_path.parent, None) for name in ("wider", "tiny"))
    kept = torch.tensor([4, 0, 2, 1])
    state = {key: tensor[kept] if tensor.dim() and len(tensor) == 5 else tensor
             for key, tensor in wider.state_dict().items()}  # fmt: skip
    state["4.weight"] = wider[4].weight.view(3, 5, 36)[:, kept].flatten(1)
    tiny.load_state_dict(state)
    torch.save(tiny.state_dict(), student_path)
    torch.save(wider.state_dict(), student_path.with_name("dense.pt"))
    found = opened(student_path, teacher_arch=f"{student_path.parent}/nets.py:wider")
    assert found.same_architecture
    assert found.channels.kept["0"].tolist() == [4, 0, 2, 1]
    assert found.student_facts.sparsity.pattern is Pattern.CHANNEL
    assert found.student_facts.macs_kept == pytest.approx(0.8)
    assert found.warnings == ()


def test_the_students_input_may_be_said_of_the_teacher(student_path, network):
    student_path.with_name("model.toml").write_text(TOML)
    dense_toml = student_path.with_name("dense.toml")
    dense_toml.write_text('architecture = "nets.py:tiny"\n' + INPUT_TABLE)
    found = opened(student_path)
    is_distilled(found, network)
    assert found.input.shape == (1, 6, 6)
    assert found.student_facts.input_source == "dense.toml; mean and std are assumed"


def test_inspect_names_teacher_and_architecture(student_path):
    def named():
        return inspect(student_path, TRUSTED).teacher_named

    assert named() == "dense.pt, named by model.toml"
    student_path.with_name("dense.toml").write_text('architecture = "nets.py:tiny"\n')
    assert named() == "dense.pt (nets.py:tiny), named by model.toml"
    student_path.with_name("model.toml").write_text(TOML.replace('teacher = "dense.pt"', "") + INPUT_TABLE)
    assert named() is None


# --- what is refused ------------------------------------------------------------------------------------


def test_inputs_that_contradict_each_other(student_path):
    dense_toml = student_path.with_name("dense.toml")
    dense_toml.write_text('architecture = "nets.py:tiny"\n' + INPUT_TABLE + "mean = [0.5]\n")
    message = refused(student_path)
    assert "take different inputs: model.toml says" in message
    assert "dense.toml" in message
    flags = InputSpec((1, 6, 6), (0.5,), (1.0,))
    assert opened(student_path, ModelFlags(input=flags, trust_code=True)).input == flags


def test_an_input_that_only_the_student_takes(student_path):
    (student_path.with_name("nets.py")).write_text(
        "from torch import nn\n"
        "def wider(): return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))\n"
        "def tiny(): return nn.Sequential(nn.Flatten(), nn.Linear(25, 3))\n"
    )
    torch.save(build("nets.py:wider", student_path.parent, None).state_dict(), student_path)
    teacher = build("nets.py:tiny", student_path.parent, None)
    torch.save(teacher.state_dict(), student_path.with_name("dense.pt"))
    student_path.with_name("dense.toml").write_text('architecture = "nets.py:tiny"\n')
    assert "teacher nets.py:tiny on images of shape [1, 6, 6]" in refused(student_path)


def test_other_classes(student_path):
    other = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    other.append(nn.Linear(144, 7))
    torch.save(other.state_dict(), student_path.with_name("dense.pt"))
    message = refused(student_path, teacher_arch=f"{student_path.parent}/nets.py:tiny")
    assert "has 7 classes, the student 3" in message


def test_an_architecture_that_the_teacher_does_not_fit(student_path):
    message = refused(student_path, teacher_arch="torchvision:resnet18")
    assert message.startswith("teacher ")
    assert "does not fit the architecture" in message
    assert "--teacher-arch" in message


def test_an_architecture_without_a_teacher(student_path):
    student_path.with_name("model.toml").write_text('architecture = "nets.py:wider"\n' + INPUT_TABLE)
    message = refused(student_path, will_prune=True, teacher_arch="torchvision:resnet18")
    assert "no teacher is given" in message
    assert "--teacher" in message


def test_code_that_only_a_toml_file_names_must_be_trusted(student_path):
    """`--arch` and `--teacher-arch` are the user's own word."""
    nets = f"{student_path.parent}/nets.py"
    by_flags = ModelFlags(arch=f"{nets}:wider")
    student_path.with_name("dense.toml").write_text('architecture = "nets.py:tiny"\n')
    assert "have not trusted" in refused(student_path, by_flags)
    assert not opened(student_path, by_flags, teacher_arch=f"{nets}:tiny").same_architecture
    student_path.with_name("dense.toml").unlink()
    student_path.with_name("model.toml").write_text(TOML + 'teacher_architecture = "nets.py:tiny"\n' + INPUT_TABLE)
    assert "have not trusted" in refused(student_path, by_flags)
