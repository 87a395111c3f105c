"""Synthetic images on disk: shards of bytes that are memory-mapped, so that a set need not fit in memory.

A shard is `NAME.npy`, uint8 (N, C, H, W), and `NAME.json` beside it, written last: a shard without it does not count.
A byte b of channel c stands for the network input low[c] + (high[c] - low[c]) · b / 255.
"""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import from_json, sha256_of, to_json
from edgerecover.errors import StageError
from edgerecover.files import npy_bytes, replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes_NCHW = NDArray[np.uint8]
    Images_NCHW = NDArray[np.float32]


@dataclass(frozen=True)
class Shard:
    """What `NAME.json` holds."""

    name: str
    num_images: int
    sha256: str
    """Digest of `NAME.npy`."""
    image_sha256: tuple[str, ...]
    """Digest of each image's bytes, which proves that two sets share none."""
    targets: tuple[int, ...]
    """The class each image was made for; empty when there was none."""
    num_on_target: int
    """How many images the teacher assigns to their class."""
    seconds: float
    batch_size: int = 0
    """Images made at once where memory ran out; 0: all images of the shard."""


@dataclass(frozen=True)
class PixelScale:
    """How bytes become network inputs, per channel."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def decode(self, bytes_NCHW: Bytes_NCHW) -> Images_NCHW:
        """Bytes to float32 network inputs."""
        import numpy as np

        low = np.asarray(self.low, np.float32)[:, None, None]
        high = np.asarray(self.high, np.float32)[:, None, None]
        return low + (high - low) * (bytes_NCHW.astype(np.float32) / np.float32(255))

    def encode(self, images_NCHW: Images_NCHW) -> Bytes_NCHW:
        """Network inputs to the nearest bytes; `encode(decode(b)) == b`."""
        import numpy as np

        low = np.asarray(self.low, np.float32)[:, None, None]
        high = np.asarray(self.high, np.float32)[:, None, None]
        bytes_NCHW: Bytes_NCHW = np.clip(np.rint((images_NCHW - low) / (high - low) * 255), 0, 255).astype(np.uint8)
        return bytes_NCHW


@dataclass(frozen=True)
class ImageSet:
    """The train, calibration or held-out set: shards in order, read through memory maps."""

    folder: Path
    scale: PixelScale
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Index after the last image of each shard; cached, so that batches cost the same however many there are."""
        import numpy as np

        return np.cumsum([shard.num_images for shard in self.shards], dtype=np.int64)

    @cached_property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Shape of each image."""
        _, c, h, w = self.bytes_of([0]).shape
        return c, h, w

    def bytes_of(self, indices: Sequence[int] | NDArray[Any]) -> Bytes_NCHW:
        """Pixels of the images at `indices`, uint8 (N, C, H, W), in that order."""
        import numpy as np

        wanted, ends = np.asarray(indices), self._ends
        if not wanted.size:
            raise IndexError("no indices given")
        shard_of = np.searchsorted(ends, wanted, side="right")
        parts: Bytes_NCHW | None = None
        for number in np.unique(shard_of):
            pixels = np.load(self.folder / f"{self.shards[number].name}.npy", mmap_mode="r", allow_pickle=False)
            if parts is None:
                parts = np.empty((wanted.size, *pixels.shape[1:]), np.uint8)
            here = shard_of == number
            parts[here] = pixels[wanted[here] - (ends[number] - self.shards[number].num_images)]
        assert parts is not None
        return parts

    def images_of(self, indices: Sequence[int] | NDArray[Any]) -> Images_NCHW:
        """Network inputs of the images at `indices`, float32 (N, C, H, W)."""
        return self.scale.decode(self.bytes_of(indices))

    def batches(self, batch_size: int) -> Iterator[Images_NCHW]:
        """All images in order as network inputs; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.images_of(range(start, min(start + batch_size, len(self))))

    @property
    def sha256(self) -> str:
        """Digest over the digests of all images in order."""
        digests = [digest for shard in self.shards for digest in shard.image_sha256]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def targets(self) -> tuple[int, ...]:
        """The class each image was made for; empty when there were no class targets."""
        return tuple(target for shard in self.shards for target in shard.targets)


@dataclass(frozen=True)
class SyntheticSets:
    """The three sets: one to distil on, one to select and calibrate on, one to judge on."""

    train: ImageSet
    calibration: ImageSet
    held_back: ImageSet

    @property
    def sha256(self) -> str:
        """Digest of the images that recovery sees, whatever they were made with."""
        shards = (*self.train.shards, *self.calibration.shards)
        return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


def write_shard(
    folder: Path,
    name: str,
    bytes_NCHW: Bytes_NCHW,
    targets: tuple[int, ...],
    num_on_target: int,
    seconds: float,
    batch_size: int = 0,
) -> Shard:
    """Put a shard on disk, pixels first, so that an interruption leaves either all of it or nothing that counts."""
    pixels = npy_bytes(bytes_NCHW)
    shard = Shard(
        name=name,
        num_images=len(bytes_NCHW),
        sha256=hashlib.sha256(pixels).hexdigest(),
        image_sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in bytes_NCHW),
        targets=targets,
        num_on_target=num_on_target,
        seconds=seconds,
        batch_size=batch_size,
    )
    replace_file(folder / f"{name}.npy", pixels)
    replace_file(folder / f"{name}.json", json.dumps(to_json(shard)).encode())
    return shard


def read_shard(folder: Path, name: str) -> Shard | None:
    """The shard if it is whole on disk: described, and its pixels still have their digest. Else None: make it again."""
    import numpy as np

    described, pixels = folder / f"{name}.json", folder / f"{name}.npy"
    if not (described.is_file() and pixels.is_file()):
        return None
    try:
        shard = from_json(Shard, json.loads(described.read_text(encoding="utf-8")))
        if shard.name != name or sha256_of(pixels) != shard.sha256:
            return None
        stored = np.load(pixels, mmap_mode="r", allow_pickle=False)
    except (ValueError, RecursionError):
        return None
    is_as_described = stored.ndim == 4 and len(stored) == shard.num_images == len(shard.image_sha256)
    return shard if is_as_described and stored.dtype == np.uint8 else None


def require_disjoint(sets: SyntheticSets) -> None:
    """Prove that no image is in two sets.

    Raises:
        StageError: an image is; nothing judged on such sets could be trusted.
    """
    seen: dict[str, str] = {}
    for split in ("train", "calibration", "held_back"):
        digests = {digest for shard in getattr(sets, split).shards for digest in shard.image_sha256}
        for digest in digests:
            if digest in seen:
                raise StageError(
                    f"the synthetic sets {seen[digest]} and {split} share an image (sha256 {digest[:12]})",
                    hint="the teacher's output may be constant: see `edgerecover inspect`, or try another --seed",
                )
        seen |= dict.fromkeys(digests, split)
