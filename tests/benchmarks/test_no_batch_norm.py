import numpy as np
import pytest
import torch
from no_batch_norm import NETWORKS, prepare, real_images, table


def record(**changes):
    return {
        "network": "lenet", "pattern": "95", "method": "balanced", "seed": 1, "num_images": 10_000, "teacher": 0.988,
        "before": 0.7056, "after": 0.9812, "seconds": 71.4, "cpu_seconds": 99.6, "peak_memory_bytes": 987_000_000,
        "mirrored": False,
    } | changes  # fmt: skip


def test_the_table_shows_runs_and_what_real_images_would_have_given():
    real = {
        "network": "lenet",
        "pattern": "95",
        "method": "real",
        "seed": 0,
        "num_images": 5000,
        "num_real_train": 4500,
    }
    real |= {"teacher": 0.98, "before": 0.66, "after": 0.967, "seconds": 40.2}
    lines = table([record(), real]).splitlines()
    assert lines[2] == (
        "| lenet | 95 | dreams, `balanced` | 1 | 98.80 | 70.56 | 98.12 | 10,000 | no | 71 | 100 | 0.99 |"
    )
    assert lines[3] == "| lenet | 95 | 4,500 real images | 0 | 98.00 | 66.00 | 96.70 | 5,000 |  | 40 |  |  |"
    assert len({line.count("|") for line in lines}) == 1


@pytest.fixture
def data(tmp_path):
    """DATA with ten images of each set, and a LeNet."""
    random = np.random.default_rng(0)
    for name in ("mnist_test", "fashion_mnist_train", "fashion_mnist_test"):
        images_NHWC = random.integers(0, 256, (10, 28, 28, 1), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images_NHWC, labels=np.arange(10))
    (tmp_path / "models.py").write_text("")
    (tmp_path / "weights").mkdir()
    for name in ("lenet_mnist", "lenet_mnist_pruned_0.9", "lenet_mnist_pruned_0.95"):
        (tmp_path / "weights" / f"{name}.pth").write_text(name)
    return tmp_path


def test_the_ceiling_of_mnist_never_learns_from_what_it_is_judged_on(data):
    sets = real_images("mnist_test", data)
    assert not set(sets["train"][1]) & set(sets["first_half"][1])
    assert len(sets["test"][1]) == 10


def test_checkpoints_of_others_are_taken_as_they_are(data, tmp_path):
    prepare("lenet", data, tmp_path / "lenet")
    for name, original in (("dense.pt", ""), ("90.safetensors", "_pruned_0.9"), ("95.safetensors", "_pruned_0.95")):
        assert (tmp_path / "lenet" / name).read_text() == f"lenet_mnist{original}"


def test_networks_of_its_own_are_trained(data, tmp_path, monkeypatch):
    import dataclasses

    monkeypatch.setitem(NETWORKS, "tanh_lenet", dataclasses.replace(NETWORKS["tanh_lenet"], num_steps=5))
    prepare("tanh_lenet", data, tmp_path / "tanh")
    weights = torch.load(tmp_path / "tanh" / "dense.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
