import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgerecover.errors import StageError
from edgerecover.synthesis.image_set import (
    ImageSet,
    PixelScale,
    SyntheticSets,
    read_shard,
    require_disjoint,
    write_shard,
)

SCALE = PixelScale((-2.0, 0.0), (2.0, 255.0))


def pixels(num_images, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_images, 2, 4, 5), np.uint8)


def put(folder, name, bytes_NCHW, targets=()):
    return write_shard(folder, name, bytes_NCHW, targets, len(targets), 1.5)


@pytest.fixture
def images(tmp_path):
    """Three shards of 4, 1 and 3 images."""
    everything = pixels(8)
    parts = np.split(everything, [4, 5])
    shards = tuple(put(tmp_path, f"train-{i}", part, (i,) * len(part)) for i, part in enumerate(parts))
    return ImageSet(tmp_path, SCALE, shards), everything


channel = st.tuples(st.floats(-300, 300, width=32), st.floats(0.125, 600, width=32))


@given(hnp.arrays(np.uint8, (1, 3, 2, 2)), st.lists(channel, min_size=3, max_size=3))
def test_bytes_survive_decoding_and_encoding(bytes_NCHW, channels):
    scale = PixelScale(tuple(low for low, _ in channels), tuple(low + span for low, span in channels))
    decoded = scale.decode(bytes_NCHW)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(scale.encode(decoded), bytes_NCHW)


def test_encoding_takes_the_nearest_byte_and_stays_inside():
    images_NCHW = np.array([-9.0, -2.0, 0.004, 9.0, 0.0, 127.4, 127.6, 300.0], np.float32).reshape(1, 2, 2, 2)
    assert SCALE.encode(images_NCHW).ravel().tolist() == [0, 0, 128, 255, 0, 127, 128, 255]


def test_images_are_found_across_shards_in_any_order(images):
    image_set, everything = images
    assert len(image_set) == 8
    order = [7, 0, 4, 3, 5, 4]
    np.testing.assert_array_equal(image_set.bytes_of(order), everything[order])
    np.testing.assert_array_equal(image_set.images_of(np.array(order)), SCALE.decode(everything[order]))
    assert image_set.targets() == (0, 0, 0, 0, 1, 2, 2, 2)


def test_batches_are_all_images_in_order(images):
    image_set, everything = images
    batches = list(image_set.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(batches), SCALE.decode(everything))


@pytest.mark.parametrize("indices", [[], [8]])
def test_no_image_to_return_is_an_index_error(images, indices):
    with pytest.raises(IndexError):
        images[0].bytes_of(indices)


def test_pixels_are_memory_mapped(images, monkeypatch):
    """A set need not fit in memory: what is read is a view of the file until the wanted rows are copied."""
    opened = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: opened.append(load(*args, **kwargs)) or opened[-1])
    images[0].bytes_of([1, 6])
    assert [type(array) for array in opened] == [np.memmap, np.memmap]


def test_a_whole_shard_is_read_back(tmp_path):
    shard = put(tmp_path, "train-00000", pixels(3), (2, 0, 1))
    assert read_shard(tmp_path, "train-00000") == shard
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000.json", "train-00000.npy"]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_pixels(npy, json_, array):
    """Whoever has the run folder can give any file its digest."""
    np.save(npy, array, allow_pickle=True)
    sha256 = hashlib.sha256(npy.read_bytes()).hexdigest()
    json_.write_text(json.dumps(json.loads(json_.read_text()) | {"sha256": sha256}))


DAMAGE = {
    "pixels are pickled objects": lambda npy, json_: replace_pixels(npy, json_, np.array([object], dtype=object)),
    "pixels are numbers of another kind": lambda npy, json_: replace_pixels(npy, json_, np.zeros((3, 1, 2, 2))),
    "fewer pixels than described": lambda npy, json_: replace_pixels(npy, json_, pixels(2)),
    "description goes deep": lambda npy, json_: json_.write_text("[" * 100_000),
    "description counts too many": lambda npy, json_: json_.write_text(
        json.dumps(json.loads(json_.read_text()) | {"num_images": 10**12})
    ),
    "pixels gone": lambda npy, json_: npy.unlink(),
    "description gone": lambda npy, json_: json_.unlink(),
    "pixels truncated": lambda npy, json_: npy.write_bytes(npy.read_bytes()[:-1]),
    "one bit flipped": lambda npy, json_: flip_a_bit(npy),
    "description truncated": lambda npy, json_: json_.write_text(json_.read_text()[:-1]),
    "description is not text": lambda npy, json_: json_.write_bytes(b"\xff\xfe"),
    "description of another shard": lambda npy, json_: json_.write_text(
        json.dumps(json.loads(json_.read_text()) | {"name": "train-00001"})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_not_there(tmp_path, damage):
    put(tmp_path, "train-00000", pixels(3))
    damage(tmp_path / "train-00000.npy", tmp_path / "train-00000.json")
    assert read_shard(tmp_path, "train-00000") is None


def test_pixels_without_their_description_do_not_count(tmp_path):
    (tmp_path / "train-00000.json").mkdir()  # the description, written last, cannot get its name
    with pytest.raises(OSError, match=r"train-00000\.json"):
        put(tmp_path, "train-00000", pixels(2))
    assert {path.name for path in tmp_path.iterdir()} == {"train-00000.npy", "train-00000.json"}
    assert read_shard(tmp_path, "train-00000") is None


def test_sets_that_share_an_image_are_refused(tmp_path):
    ours = [pixels(3, seed) for seed in range(3)]
    ours[2][1] = ours[0][2]
    train, calibration, held_back = (
        ImageSet(tmp_path, SCALE, (put(tmp_path, f"set-{i}", part),)) for i, part in enumerate(ours)
    )
    with pytest.raises(StageError, match="train and held_back share an image"):
        require_disjoint(SyntheticSets(train, calibration, held_back))
    other = dataclasses.replace(held_back, shards=(put(tmp_path, "set-3", pixels(3, 9)),))
    require_disjoint(SyntheticSets(train, calibration, other))
