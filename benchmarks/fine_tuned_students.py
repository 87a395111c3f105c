r"""Students that others have trained after pruning: what recovery without data does to their real accuracy.

    python benchmarks/fine_tuned_students.py DATA --networks lenet cnn --methods unprotected shipped   # measure, print
    python benchmarks/fine_tuned_students.py                                                 # print what was measured

DATA is the folder of benchmarks/recovery.py, with fashion_mnist_train.npz, fashion_mnist_test.npz and mnist_test.npz.
A network is trained here (Fashion-MNIST, 20,000 images) or taken from DATA/weights, pruned in one shot, and then
changed as people change pruned networks: fine-tuned for few or many steps, solved layer by layer, recalibrated,
rounded, scaled. Every student then goes through each method, and is judged before and after on the same test images,
which nothing else sees. Networks `lenet` and `cnn` served to choose the rule; the others only to check it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from prediction_networks import cnn, mobile, open_network
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.compute import choose_compute
from edgerecover.config import Profile, load_profile
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_models
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.layerwise import fit_layers
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet, PixelScale, SyntheticSets, write_shard
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.source import Source

COMPUTE = choose_compute("cpu")
FASHION = InputSpec((1, 28, 28), (0.286,), (0.353,))
MNIST = InputSpec((1, 28, 28), (0.1307,), (0.3081,))
NUM_TRAIN = 20_000
"""Of Fashion-MNIST: an epoch is 156 steps of 128."""
SPARSITIES = (0.5, 0.75, 0.9, 0.95)
Images = tuple[Tensor, Tensor]
"""Network inputs (N, C, H, W) and labels (N,)."""


# --- networks and their images --------------------------------------------------------------------------------


def lenet() -> nn.Module:
    """LeNet-5 without batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A teacher with its dreams and its real images."""

    network: str
    teacher: nn.Module
    earlier: nn.Module
    """The teacher some training before: what a student may have been pruned from."""
    other: Callable[[], nn.Module] | None
    """Gives a network of the same shape from another seed."""
    input: InputSpec
    sets: SyntheticSets
    train: Images
    test: Images
    flip: bool
    lr: float
    """At which its students are fine-tuned."""


@dataclass(frozen=True)
class Recipe:
    build: Callable[[], nn.Module]
    seed: int


FASHION_NETWORKS = {
    "lenet": Recipe(lenet, 0),
    "cnn": Recipe(cnn, 0),
    "lenet-seed1": Recipe(lenet, 1),
    "cnn-seed1": Recipe(cnn, 1),
    "mobile": Recipe(mobile, 2),
}
OUTPUT = OutputSpec.one_label(10)
DEVELOPED_ON = ("lenet", "cnn")
CHECKED_ON = ("lenet-seed1", "cnn-seed1", "mobile", "mnist-lenet", "resnet8")


def open_case(name: str, data: Path, work: Path, profile: Profile) -> Case:
    make = _fashion if name in FASHION_NETWORKS else {"mnist-lenet": _mnist, "resnet8": _cifar}[name]
    teacher, earlier, other, input, train, test, flip, lr = make(name, data, work)
    settings = profile.synthesis.model_copy(update={"flip": flip})
    source = Source(teacher, input, OUTPUT, COMPUTE)
    folder = work / f"dreams-{synthesis_key(source, settings, 0)}"
    sets, _ = synthesize(source, settings, seed=0, folder=folder)
    return Case(name, teacher, earlier, other, input, sets, train, test, flip, lr)


def _fashion(name, data, work):  # type: ignore[no-untyped-def]
    recipe = FASHION_NETWORKS[name]
    train, test = (_images(data / f"fashion_mnist_{split}.npz", FASHION) for split in ("train", "test"))
    train = (train[0][:NUM_TRAIN], train[1][:NUM_TRAIN])
    earlier = _kept(work / f"{name}-earlier.pt", recipe.build, lambda n: fine_tune(n, train, 780, 0.05, final=0.5),
                    recipe.seed)  # fmt: skip
    teacher = _kept(work / f"{name}-teacher.pt", lambda: copy.deepcopy(earlier),
                    lambda n: fine_tune(n, train, 468, 0.03, weight_decay=5e-4), recipe.seed)  # fmt: skip

    def other() -> nn.Module:
        path, seed = work / f"{name}-other.pt", recipe.seed + 100
        return _kept(path, recipe.build, lambda n: fine_tune(n, train, 936, 0.05), seed)

    return teacher, earlier, other, FASHION, train, test, True, 0.02


def _mnist(name, data, work):  # type: ignore[no-untyped-def]
    """Half of the test images are fine-tuned on, and the other half judged on: there are no others."""
    models = open_models(
        data / "weights/lenet_mnist.pth",
        ModelFlags(arch=f"{data / 'models.py'}:lenet", input=MNIST, trust_code=True),
        will_prune=True,
    )
    images, labels = _images(data / "mnist_test.npz", MNIST)
    return models.teacher, models.teacher, None, MNIST, (images[::2], labels[::2]), (images[1::2], labels[1::2]), \
        False, 0.01  # fmt: skip


def _cifar(name, data, work):  # type: ignore[no-untyped-def]
    teacher, input = open_network(name, data)
    images, labels = _images(data / "cifar10_png_train7728.npz", input)
    cut = 5728
    return teacher, teacher, None, input, (images[:cut], labels[:cut]), (images[cut:], labels[cut:]), True, 0.005


def _images(path: Path, input: InputSpec) -> Images:
    arrays = np.load(path)
    mean, std = np.array(input.mean, np.float32), np.array(input.std, np.float32)
    low, high = input.range
    pixels = low + (high - low) * arrays["images"].astype(np.float32) / 255
    images_NCHW = np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))
    return torch.from_numpy(images_NCHW), torch.from_numpy(arrays["labels"]).long()


def _kept(path: Path, build: Callable[[], nn.Module], train: Callable[[nn.Module], None], seed: int) -> nn.Module:
    """Built, trained and written to `path`, or read from there."""
    torch.manual_seed(seed)
    network = build()
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(network)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    return network.eval().requires_grad_(False)


def fine_tune(
    network: nn.Module,
    images: Images,
    num_steps: int,
    lr: float,
    masks: dict[str, Tensor] | None = None,
    *,
    weight_decay: float = 0.0,
    final: float = 0.0,
    adam: bool = False,
    teacher: nn.Module | None = None,
    seed: int = 0,
) -> None:
    """As someone with labels does it, in place; with a teacher, by distillation on real images."""
    network.train().requires_grad_(True)
    images_NCHW, labels_N = images
    generator = torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        network.parameters(), lr, momentum=0.9, weight_decay=weight_decay
    )
    if adam:
        optimizer = torch.optim.Adam(network.parameters(), lr)
    for step in range(num_steps):
        share = 0.5 * (1 + math.cos(math.pi * step / num_steps))
        optimizer.param_groups[0]["lr"] = lr * (final + (1 - final) * share)
        chosen = torch.randint(len(images_NCHW), (128,), generator=generator)
        logits = network(images_NCHW[chosen])
        loss = F.cross_entropy(logits, labels_N[chosen])
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(images_NCHW[chosen])
            loss = F.kl_div(F.log_softmax(logits / 4, 1), F.log_softmax(taught / 4, 1), reduction="batchmean",
                            log_target=True) * 16  # fmt: skip
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        apply_masks(network, masks or {})
    network.eval().requires_grad_(False)


# --- students -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student:
    name: str
    kind: str
    """`one-shot`, `rounded`, `own statistics`, `trained` or `broken`."""
    network: nn.Module
    masks: dict[str, Tensor]


def students(case: Case, work: Path, sparsities: Sequence[float], only: Sequence[str]) -> Iterator[Student]:
    for sparsity in sparsities:
        masks = global_magnitude_masks(case.teacher, sparsity)
        for name, kind, make in recipes(case, masks):
            full = f"{name}-{100 * sparsity:g}"
            if only and name not in only:
                continue
            path = work / "students" / f"{case.network}-{full}.pt"
            network = _kept(path, lambda: copy.deepcopy(case.teacher), make, 0)
            kept = {n: network.get_parameter(n) != 0 for n in masks}
            yield Student(full, kind, network, kept)


def recipes(case: Case, masks: dict[str, Tensor]) -> Iterator[tuple[str, str, Callable[[nn.Module], None]]]:
    sparsity = 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    epoch = min(156, len(case.train[0]) // 128)

    def after(*steps: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        def make(network: nn.Module) -> None:
            apply_masks(network, masks)
            for step in steps:
                step(network)
            apply_masks(network, masks)

        return make

    def tuned(num_steps: int, lr: float, **flags: object) -> Callable[[nn.Module], None]:
        return lambda n: fine_tune(n, case.train, num_steps, lr, masks, **flags)  # type: ignore[arg-type]

    def start_from(source: nn.Module) -> Callable[[nn.Module], None]:
        return lambda n: n.load_state_dict(source.state_dict()) and None  # type: ignore[func-returns-value]

    def pruned_anew(network: nn.Module) -> None:
        apply_masks(network, global_magnitude_masks(network, sparsity))

    def from_other(num_steps: int) -> Callable[[nn.Module], None]:
        def make(network: nn.Module) -> None:
            assert case.other is not None
            start_from(case.other())(network)
            pruned_anew(network)
            own = {n: network.get_parameter(n) != 0 for n in masks}
            if num_steps:
                fine_tune(network, case.train, num_steps, case.lr, own)

        return make

    def from_earlier(network: nn.Module) -> None:
        start_from(case.earlier)(network)
        pruned_anew(network)

    lr = case.lr
    yield "one-shot", "one-shot", after()
    yield "tuned-30-steps", "trained", after(tuned(30, lr / 2))
    yield "tuned-1-epoch", "trained", after(tuned(epoch, lr))
    yield "tuned-4-epochs", "trained", after(tuned(4 * epoch, 2 * lr, weight_decay=5e-4))
    if sparsity > 0.6 and sparsity < 0.8:
        yield "float16", "rounded", after(lambda n: n.half().float() and None)
        yield "int8", "rounded", after(lambda n: round_to(n, 8))
        yield "scaled", "rounded", after(lambda n: scale(n, 0.9))
        yield "tuned-gently", "trained", after(tuned(30, lr / 100))
        yield "tuned-then-int8", "trained", after(tuned(epoch, lr), lambda n: round_to(n, 8))
    if case.other is not None and (sparsity < 0.6 or 0.85 < sparsity < 0.92):
        yield "other-seed-tuned", "trained", from_other(epoch)
        yield "earlier-one-shot", "trained", from_earlier
    if sparsity < 0.6 or 0.85 < sparsity < 0.92:
        yield "least-squares", "trained", after(lambda n: least_squares(n, case, masks))
    if any(isinstance(module, nn.BatchNorm2d) for module in case.teacher.modules()):
        yield "recalibrated", "own statistics", after(lambda n: recalibrate(n, case))
    if sparsity > 0.85:
        yield "tuned-gently", "trained", after(tuned(30, lr / 100))
        yield "adam-1-epoch", "trained", after(tuned(epoch, 1e-3, adam=True))
        yield "distilled-on-real", "trained", after(tuned(epoch, lr, teacher=case.teacher))
    if sparsity > 0.92:
        yield "bfloat16", "rounded", after(lambda n: n.bfloat16().float() and None)
        yield "noisy", "broken", after(lambda n: disturb(n, 1.0))
        yield "random", "broken", after(lambda n: disturb(n, None))


@torch.no_grad()
def round_to(network: nn.Module, bits: int) -> None:
    """Weights to the nearest value of a symmetric grid per tensor."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            step = parameter.abs().max() / (2 ** (bits - 1) - 1)
            parameter.copy_((parameter / step).round() * step)


@torch.no_grad()
def scale(network: nn.Module, factor: float) -> None:
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.mul_(factor)


@torch.no_grad()
def disturb(network: nn.Module, relative: float | None) -> None:
    """Noise on the weights, relative to their own size; None: noise instead of them."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            noise = torch.randn(parameter.shape) * parameter.square().mean().sqrt()
            parameter.copy_(noise if relative is None else parameter + relative * noise)


def recalibrate(network: nn.Module, case: Case) -> None:
    """Batch norm statistics from 2,560 real images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    with torch.no_grad():
        for batch in case.train[0][:2560].split(128):
            network(batch)
    for norm in norms:
        norm.momentum = 0.1
    network.eval()


def least_squares(network: nn.Module, case: Case, masks: dict[str, Tensor]) -> None:
    """Closed-form updates on real images, layer by layer."""
    low, high = case.input.bounds()
    images_NCHW = PixelScale(low, high).encode(case.train[0][:512].numpy())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard = write_shard(folder, "train-00000", images_NCHW, (), 0, 0.0)
        images = ImageSet(folder, PixelScale(low, high), (shard,))
        fit_layers(Pair(network, case.teacher, masks, output=OUTPUT), images, 64, Execution(COMPUTE))


# --- measuring ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One student through one method."""

    network: str
    student: str
    kind: str
    method: str
    before: float
    after: float
    """Accuracy on the test images, 0 to 1."""
    error: float
    """Standard error of their difference, from the images on which the two differ."""
    agreement_before: float
    agreement_after: float
    """With the teacher, on held-out dreams."""
    chosen: str
    teacher: float


@torch.no_grad()
def hits(network: nn.Module, images: Images) -> Tensor:
    return torch.cat([network(x).argmax(1) == y for x, y in zip(*(part.split(1000) for part in images), strict=True)])


def agreement(network: nn.Module, case: Case) -> float:
    ours, taught = (logits_on(n, case.sets.held_back, COMPUTE).argmax(1) for n in (network, case.teacher))
    return float((ours == taught).float().mean())


def judged(case: Case, student: Student, method: str, after: nn.Module, chosen: str) -> Row:
    before_N, after_N = hits(student.network, case.test), hits(after, case.test)
    num_changed = int((before_N != after_N).sum())
    return Row(
        case.network, student.name, student.kind, method, float(before_N.float().mean()), float(after_N.float().mean()),
        math.sqrt(num_changed) / len(before_N), agreement(student.network, case), agreement(after, case), chosen,
        float(hits(case.teacher, case.test).float().mean()),
    )  # fmt: skip


Method = Callable[[Case, Student, Profile], tuple[nn.Module, str]]


def climb(case: Case, student: Student, profile: Profile, **changes: object) -> tuple[nn.Module, str]:
    settings = profile.recovery.model_copy(update={"flip": case.flip, **changes})
    pair = Pair(student.network, case.teacher, student.masks, output=OUTPUT)
    recovered = recover(pair, case.sets, settings, Execution(COMPUTE), seed=0)
    return recovered.student, next(rung.name for rung in recovered.rungs if rung.chosen)


METHODS: dict[str, Method] = {
    "unprotected": lambda case, student, profile: climb(case, student, profile, fine_tuned="recover"),
    "shipped": lambda case, student, profile: climb(case, student, profile),
}


def measure(case: Case, asked: argparse.Namespace, profile: Profile) -> None:
    results = asked.results
    done = {(row.network, row.student, row.method) for row in read(results)}
    for student in students(case, asked.work, asked.sparsities, asked.students):
        for method in asked.methods:
            if (case.network, student.name, method) in done:
                continue
            after, chosen = METHODS[method](case, student, profile)
            row = judged(case, student, method, after, chosen)
            print(line(row), flush=True)
            write(results, [*read(results), row])


def line(row: Row) -> str:
    points = 100 * (row.after - row.before)
    sign = "WORSE" if points < -100 * row.error else ""
    return (
        f"{row.network:12} {row.student:24} {row.kind:14} {row.method:12} {100 * row.before:5.1f} -> "
        f"{100 * row.after:5.1f} ({points:+5.1f} ± {100 * row.error:.1f}) agrees {100 * row.agreement_before:4.0f} -> "
        f"{100 * row.agreement_after:3.0f}  {row.chosen} {sign}"
    )


def read(results: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(results.read_text())] if results.exists() else []


def write(results: Path, rows: list[Row]) -> None:
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    replace_file(results, f"[\n{lines}\n]\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="left out: only print")
    parser.add_argument("--networks", nargs="+", default=[*DEVELOPED_ON, *CHECKED_ON])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--students", nargs="+", default=[], help="by recipe: one-shot, tuned-1-epoch; left out: all")
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--work", type=Path, default=Path("benchmark-results/fine-tuned"))
    parser.add_argument("--results", type=Path, default=Path("benchmark-results/fine-tuned/results.json"))
    asked = parser.parse_args()
    if asked.data:
        profile = load_profile(asked.profile)
        for network in asked.networks:
            case = open_case(network, asked.data, asked.work, profile)
            measure(case, asked, profile)


if __name__ == "__main__":
    main()
