"""Teacher and student normalise by the batch, which several processes may share."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.compute import Compute
from edgerecover.distributed import ALONE, Ranks
from edgerecover.models.pair.channels import UNRELATED, ChannelMap
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.matched_norms import matched_norms
from edgerecover.recovery.statistics import repair_statistics
from edgerecover.synthesis.image_set import ImageSet, PixelScale, write_shard
from tests.pairs import pair_of
from tests.processes import in_processes


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5, momentum=None),
    ).train()  # fmt: skip


def images():
    return 3 + 2 * torch.randn((7, 3, 10, 10), generator=torch.Generator().manual_seed(1))


def learn(ranks):
    """Two steps on a batch of seven, which no number of processes divides: weights and statistics afterwards."""
    net, batch = network(), images()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rows = ranks.rows(len(batch))
    with matched_norms(net, net, ranks, UNRELATED):
        for _ in range(2):
            optimizer.zero_grad()
            out = net(batch[rows.start : rows.stop])
            (out.square().mean() * len(rows) / len(batch) + 0.1 * out[:, 0].sum()).backward()
            ranks.add_up([parameter.grad for parameter in net.parameters()])
            optimizer.step()
    assert not any(module._forward_pre_hooks for module in net.modules())
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


class Twins(Ranks):
    """Two processes that hold the same rows."""

    def __init__(self):
        super().__init__(0, 2)

    def stacked(self, tensor):
        return torch.stack([tensor, tensor])

    def sum(self, tensor):
        return 2 * tensor


class WithActivation(nn.BatchNorm2d):
    def forward(self, images):
        return F.leaky_relu(super().forward(images), 0.2)


class ByKeyword(nn.Sequential):
    def forward(self, images):
        return self[0](images=images)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.BatchNorm2d(4)),
        nn.Sequential(nn.BatchNorm2d(4, momentum=None)),
        nn.Sequential(nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(WithActivation(4)),
        ByKeyword(WithActivation(4)),
        nn.Sequential(*[WithActivation(4)] * 2),
    ],
)
def test_each_process_computes_its_part_of_what_one_would(network):
    """Outputs, gradients and running statistics, of a layer as it is: activation, keyword and second call included."""
    network = copy.deepcopy(network).train()
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    alone = copy.deepcopy(network)
    rows = torch.randn((5, 4, 3, 3))
    ours, theirs = rows.clone().requires_grad_(), torch.cat([rows, rows]).requires_grad_()
    wanted = torch.randn((5, 4, 3, 3))
    with matched_norms(network, network, Twins(), UNRELATED):
        made = network(ours)
        (made * wanted).sum().backward()
    expected = alone(theirs)
    (expected * torch.cat([wanted, wanted])).sum().backward()
    torch.testing.assert_close(made, expected[:5], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad[:5], rtol=1e-4, atol=1e-4)
    for own, whole in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(2 * own.grad, whole.grad, rtol=1e-4, atol=1e-4)
    for own, whole in zip(network.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(own, whole, rtol=1e-5, atol=1e-5)
    assert network[0].training
    assert not network[0]._forward_pre_hooks


def test_synchronised_layers_work_without_a_gpu():
    torch.manual_seed(0)
    rows = torch.randn(6, 4, 3, 3)
    network = nn.Sequential(nn.SyncBatchNorm(4)).train()
    with matched_norms(network, network, Twins(), UNRELATED):
        made = network(rows)
    torch.testing.assert_close(made, nn.BatchNorm2d(4).train()(torch.cat([rows, rows]))[:6], rtol=1e-4, atol=1e-5)


def test_one_process_keeps_pytorchs_layers():
    net = network()
    with matched_norms(net, net, ALONE, UNRELATED):
        assert not any(module._forward_pre_hooks for module in net.modules())


def test_layers_in_eval_mode_use_what_they_stored():
    net = network().eval()
    expected = net(images())
    with matched_norms(net, net, Ranks(0, 2), UNRELATED):  # nothing is said to the other process, which does not exist
        torch.testing.assert_close(net(images()), expected, rtol=0, atol=0)


def settled():
    """A network that has stored statistics, in eval mode."""
    net = network()
    for layer in (net[1], net[4], net[7]):
        layer.momentum = None
    for number in range(3):
        net(torch.randn((50, 3, 10, 10), generator=torch.Generator().manual_seed(number)))
    return net.eval()


def foreign_images():
    """Brighter and of more contrast than those that `settled` has seen."""
    return 0.5 + 1.3 * torch.randn((7, 3, 10, 10), generator=torch.Generator().manual_seed(9))


def test_a_copy_of_the_teacher_sees_what_the_teacher_sees():
    """Both normalise images unlike those of the statistics, and what the copy stores does not follow these images."""
    teacher = settled()
    student, batch = copy.deepcopy(teacher).train(), foreign_images()
    stored = {name: value.clone() for name, value in teacher.state_dict().items()}
    with matched_norms(student, teacher, ALONE) as matching, matching.batch():
        shown = teacher(batch)
        torch.testing.assert_close(student(batch), shown, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shown.mean(0), torch.zeros(5), rtol=0, atol=1e-4)
    assert not torch.allclose(teacher(batch), shown, rtol=0.1, atol=0.1), "by what it has stored"
    for name, value in stored.items():
        torch.testing.assert_close(teacher.state_dict()[name], value, rtol=0, atol=0)
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(student.state_dict()[name], value, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_pre_hooks for net in (teacher, student) for module in net.modules())


def test_statistics_follow_those_of_a_repair(tmp_path):
    teacher = settled()
    pixels = torch.randint(40, 200, (7, 3, 10, 10), generator=torch.Generator().manual_seed(9)).to(torch.uint8).numpy()
    scale = PixelScale((-1.0,) * 3, (4.0,) * 3)
    images = ImageSet(tmp_path, scale, (write_shard(tmp_path, "train", pixels, (), 0, 0.0),))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight.mul_(0.3)
    repaired = copy.deepcopy(student)
    repair_statistics(
        pair_of(repaired, teacher), images, 7, Execution(Compute(torch.device("cpu"), None, torch.contiguous_format))
    )
    for layer in (student[1], student[4], student[7]):
        layer.train().momentum = 1.0
    batch = torch.from_numpy(images.images_of(range(7)))
    with matched_norms(student, teacher, ALONE) as matching, matching.batch():
        teacher(batch)
        student(batch)
    assert not torch.allclose(student[1].running_var, teacher[1].running_var, rtol=0.5)
    for name, value in repaired.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(student.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_teacher_of_frozen_layers_uses_what_it_has_stored():
    teacher = settled()
    student, batch = copy.deepcopy(teacher), foreign_images()
    expected = teacher(batch)
    with matched_norms(student, teacher, ALONE) as matching, matching.batch():
        torch.testing.assert_close(teacher(batch), expected, rtol=0, atol=0)
        torch.testing.assert_close(student(batch), expected, rtol=0, atol=0)


def test_a_narrower_students_statistics_are_those_of_its_channels():
    teacher = nn.Sequential(nn.BatchNorm2d(4)).eval()
    teacher[0].running_mean.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    student = nn.Sequential(nn.BatchNorm2d(2)).train()
    kept = torch.tensor([1, 3])
    batch = foreign_images()[:, :1].expand(-1, 4, -1, -1)
    with matched_norms(student, teacher, ALONE, ChannelMap({"0": kept})) as matching, matching.batch():
        shown = teacher(batch)[:, kept]
        found = student(5 * batch[:, kept])
    torch.testing.assert_close(found, shown, rtol=1e-4, atol=1e-4)
    expected = teacher[0].running_mean[kept] - batch.mean((0, 2, 3))[kept]
    moved = student[0].running_mean / student[0].momentum - 5 * batch.mean((0, 2, 3))[kept]
    torch.testing.assert_close(moved, 5 * expected, rtol=1e-3, atol=1e-3)


def test_processes_use_the_moments_of_the_whole_batch():
    teacher = settled()
    batch, wanted = foreign_images(), torch.randn((7, 5), generator=torch.Generator().manual_seed(3))
    outcomes = []
    for ranks, images, weights in ((Twins(), batch, wanted), (ALONE, batch.repeat(2, 1, 1, 1), wanted.repeat(2, 1))):
        student = copy.deepcopy(teacher)
        with torch.no_grad():
            student[0].weight.mul_(0.3)
        student.train()
        with matched_norms(student, teacher, ranks) as matching, matching.batch():
            teacher(images)
            (student(images) * weights).sum().backward()
        gradients = [(2 if ranks.size == 2 else 1) * parameter.grad for parameter in student.parameters()]
        outcomes.append([*gradients, *student.buffers()])
    for own, whole in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_processes_learn_what_one_would(size, tmp_path):
    pytest.importorskip("accelerate")
    expected = learn(ALONE)
    for found in in_processes(size, __file__, "learn", tmp_path):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_what_the_teacher_is_shown_by_one_process_alone_is_told_to_no_other():
    """Fresh images are made by the first process: a talk with the others would wait for ever."""
    teacher = settled()
    student = copy.deepcopy(teacher).train()
    with matched_norms(student, teacher, Ranks(0, 2)):  # the other process does not exist
        teacher(foreign_images())
