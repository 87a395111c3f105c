import dataclasses

import numpy as np
import pytest
import torch
from task_data import EXAMPLES, UNSEEN_CLASSES, clothes, measured_bars, scratched_surfaces, segmented_shapes
from task_training import TASKS, judge, network_of, prepare, run_module
from task_truth import (
    mean_average_precision,
    mean_average_precision_at_r,
    mean_f1,
    mean_intersection_over_union,
    recall_at_1,
    share_decided_right,
    spread_explained,
    won_back,
)
from tasks import table


@pytest.fixture
def data(tmp_path):
    """DATA with a few images of each file."""
    random = np.random.default_rng(0)
    for name in ("mnist_test", "fashion_mnist_train", "fashion_mnist_test"):
        images_NHWC = random.integers(0, 256, (50, 28, 28, 1), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images_NHWC, labels=np.arange(50) % 10)
    return tmp_path


# --- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_the_same_each_time_and_others_to_test_on(name, data):
    one, again, test = (EXAMPLES[name](data, 8, split) for split in ("train", "train", "test"))
    assert one.images.dtype == np.uint8
    assert np.array_equal(one.images, again.images)
    assert np.array_equal(one.truth, again.truth)
    assert not np.array_equal(one.images, test.images)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_network_fits_its_images_and_truth(name, data):
    examples = EXAMPLES[name](data, 8, "train")
    network = network_of(name).eval()
    found = judge(name, lambda inputs: run_module(network, inputs), examples)
    assert all(0 <= value <= 1 for value in found.values() if not np.isnan(value))
    assert 20_000 <= sum(parameter.numel() for parameter in network.parameters()) <= 200_000


def test_every_second_surface_has_a_scratch_that_the_same_surface_without_it_has_not():
    examples = scratched_surfaces(40, "train")
    assert examples.truth.tolist() == [0, 1] * 20
    # A scratch reaches further from the image's median than grain and waves do.
    reach = np.abs(examples.images.astype(float) - np.median(examples.images, axis=(1, 2, 3), keepdims=True))
    high = np.sort(reach.reshape(40, -1), axis=1)[:, -5:].mean(1)
    assert high[1::2].mean() > 1.2 * high[::2].mean()


def test_a_bar_is_as_long_and_as_tilted_as_its_truth_says():
    examples = measured_bars(100, "test")
    y, x = np.mgrid[:32, :32] + 0.5
    measured = []
    for image_HW in examples.images[..., 0].astype(float):
        contrast_HW = np.abs(image_HW - np.median(image_HW))
        weight_HW = (contrast_HW > 0.6 * np.percentile(contrast_HW, 95)).astype(float)
        spread = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=weight_HW.ravel())
        variances, axes = np.linalg.eigh(spread)
        measured.append((np.sqrt(12 * variances[1]) / 32, np.arctan(axes[1, 1] / axes[0, 1]) / (np.pi / 4)))
    for found_N, true_N in zip(np.array(measured).T, examples.truth[:, [0, 2]].T, strict=True):
        assert np.median(np.abs(found_N - true_N)) < 0.1


def test_masks_are_of_the_shapes_that_are_seen():
    examples = segmented_shapes(30, "train")
    assert set(np.unique(examples.truth)) == {0, 1, 2, 3}
    edges = np.diff(examples.images.astype(float), axis=2)
    step = np.abs(edges).mean(-1)
    on_border = np.diff(examples.truth, axis=2) != 0
    assert step[on_border].mean() > 3 * step[~on_border].mean()


def test_the_embedding_learns_nothing_of_some_classes_and_is_tested_on_all(data):
    assert not set(UNSEEN_CLASSES) & set(clothes(data, 50, "train").truth)
    assert set(UNSEEN_CLASSES) < set(clothes(data, 50, "test").truth)


def test_digits_to_train_on_are_not_those_to_test_on(data):
    with np.load(data / "mnist_test.npz") as arrays:
        images, labels = arrays["images"].copy(), arrays["labels"]
    images[40:] = 0  # the last fifth
    np.savez(data / "mnist_test.npz", images=images, labels=labels)
    assert not EXAMPLES["multi-label"](data, 8, "test").images.any()
    assert EXAMPLES["multi-label"](data, 8, "train").images.any()


def test_a_task_gets_a_folder_as_a_user_has_it(data, tmp_path, monkeypatch):
    few = dataclasses.replace(TASKS["regression"], num_train=8, num_test=4, num_steps=2, batch_size=4)
    monkeypatch.setattr("task_training.TASKS", {"regression": few})
    folder = tmp_path / "regression"
    prepare("regression", data, folder)
    weights = torch.load(folder / "dense.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert 'task = "regression"' in (folder / "model.toml").read_text()
    assert (folder / "nets.py").exists()
    with np.load(folder / "test.npz") as arrays:
        assert arrays["images"].shape == (4, 32, 32, 1)
        assert arrays["labels"].shape == (4, 3)


# --- truth --------------------------------------------------------------------------------------------------


def test_one_logit_decides_by_its_sign():
    assert share_decided_right(np.array([[0.1], [-3.0], [2.0], [-0.1]]), np.array([1, 0, 0, 1])) == 0.5


def test_average_precision_is_that_of_the_ranking():
    logits_NK = np.array([[9.0], [8.0], [7.0], [6.0]])
    assert mean_average_precision(logits_NK, np.array([[1], [0], [1], [0]])) == pytest.approx((1 + 2 / 3) / 2)


def test_f1_weighs_what_is_given_against_what_is_there():
    logits_NK = np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    # First label: 1 of 2 given is right, 1 of 2 is found; the second is never given.
    assert mean_f1(logits_NK, np.array([[1, 1], [0, 0], [1, 0]])) == pytest.approx(0.25)


def test_neighbours_are_found_by_cosine_and_never_the_image_itself():
    embeddings_ND = np.array([[1.0, 0.0], [50.0, 1.0], [0.0, 1.0], [0.9, 0.3]])
    # Nearest of 0 is 1, of 1 is 0, of 2 is 3, of 3 is 1.
    assert recall_at_1(embeddings_ND, np.array([0, 0, 1, 1])) == 0.75
    assert recall_at_1(embeddings_ND, np.array([0, 1, 1, 1])) == 0.5


def test_map_at_r_is_the_precision_up_to_each_right_neighbour():
    angles = np.array([0.0, 0.1, 0.3, 0.7])
    embeddings_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    truth_N = np.array([0, 1, 0, 0])
    # Of class 0, with two others each: from 0, neighbours 1 0 → (0 + 1/2) / 2; from 2, neighbours 1, 0 → the same;
    # from 3, neighbours 2, 1 → (1 + 0) / 2. The one of class 1 has nobody.
    assert mean_average_precision_at_r(embeddings_ND, truth_N) == pytest.approx((0.25 + 0 + 0.25 + 0.5) / 4)


def test_a_constant_explains_no_spread_and_more_than_wrong_is_no_worse():
    truth_ND = np.random.default_rng(0).normal(size=(1000, 2)) * [1, 5]
    assert spread_explained(truth_ND, truth_ND) == 1
    assert spread_explained(np.broadcast_to(truth_ND.mean(0), truth_ND.shape), truth_ND) == pytest.approx(0)
    assert spread_explained(100 - truth_ND, truth_ND) == 0
    assert spread_explained(truth_ND + 0.1 * truth_ND.std(0), truth_ND) == pytest.approx(0.9)


def test_iou_is_counted_over_all_images_and_averaged_over_classes():
    truth_NHW = np.array([[[0, 0], [0, 1]], [[0, 0], [1, 1]]])
    says_NHW = np.array([[[0, 0], [1, 1]], [[0, 0], [1, 0]]])
    logits_NKHW = np.eye(2)[says_NHW].transpose(0, 3, 1, 2)
    assert mean_intersection_over_union(logits_NKHW, truth_NHW) == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert mean_intersection_over_union(logits_NKHW.reshape(2, -1), truth_NHW) == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_what_is_won_back_is_a_share_of_what_was_lost():
    assert won_back(0.9, 0.5, 0.8) == pytest.approx(0.75)
    assert won_back(0.9, 0.5, 0.4) == pytest.approx(-0.25)
    assert won_back(0.9, 0.9, 0.9) is None


# --- the table ----------------------------------------------------------------------------------------------


def record(method, seed, recovered):
    return {
        "task": "binary", "pattern": "75", "profile": "fast", "method": method, "seed": seed, "cpu_seconds": 100 + seed,
        "dense": {"accuracy": 0.9}, "pruned": {"accuracy": 0.5}, "recovered": {"accuracy": recovered},
    }  # fmt: skip


def test_the_table_sets_dreams_against_real_images():
    records = [record("dreams", 0, 0.8), record("dreams", 1, 0.84), record("real", 0, 0.9)]
    assert table(records).splitlines()[2] == (
        "| binary | accuracy | 75 | 90.0 | 50.0 | 82.0 ± 2.8 | 90.0 | 80.0 ± 7.1 | 100.0 | 100 |"
    )
