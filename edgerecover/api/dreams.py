"""`dream`: synthetic images from a dense teacher, as tensors."""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgerecover.api.display import watching
from edgerecover.api.given import (
    DEVICES,
    Device,
    FilePath,
    Network,
    Task,
    architecture_of,
    flags_from,
    network_of,
    path_of,
    require_choice,
    require_least,
)
from edgerecover.api.place import place_of
from edgerecover.api.words import errors_in_python
from edgerecover.commands.inputs import require_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.config import Profile
    from edgerecover.progress import Progress


class Dreams(NamedTuple):
    """Synthetic images and the classes that they were made for."""

    images: Tensor
    """float32 network inputs (N, C, H, W): (pixel - mean) / std, every pixel inside the valid range."""
    labels: Tensor | None
    """int64 (N,); None if the recipe makes images for no class."""


def dream(
    teacher: Network,
    num_images: int = 64,
    *,
    profile: FilePath = "balanced",
    record: FilePath | None = None,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    assume: bool = False,
    arch: str | None = None,
    task: Task | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    seed: int = 0,
    device: Device = "auto",
    run_folder: FilePath | None = None,
    progress: bool | Progress = True,
) -> Dreams:
    """Synthesize images from a dense teacher, for a look at them or to calibrate another tool.

    They are made as `edgerecover synthesize --set train` makes them.

    Args:
        teacher: the dense network, in memory or as a checkpoint's path. It is not changed.
        num_images: N, spread evenly over the classes.
        profile: recipe: a name from `edgerecover profiles list`, or a .toml file.
        record: activation record of the teacher.
        input_shape: (C, H, W). A network in memory needs it; a file's may be known.
        mean: one number per channel; None: 0.
        std: one number per channel; None: 1.
        pixel_range: lowest and highest pixel before mean and std; None: 0 and 1.
        assume: accept the input of a library's own weights though it may be wrong: for another number of classes, or
            where the teacher's batch norm contradicts it.
        arch: architecture of a file, if nothing beside it says.
        task: what the network is for: "one-label", "binary", "multi-label", "embedding", "regression",
            "segmentation" or "detection"; None: what a `model.toml` or its outputs tell.
        trust_code: run the Python code that a `model.toml` names, without a record of trust.
        trust_pickle: unpickle a file that is a whole module, which runs whatever code it names.
        seed: of all randomness.
        device: to compute on: "auto", "cuda" or "cpu".
        run_folder: where images are kept for the next call to reuse; None: a temporary one.
        progress: True, False, or an object that is told everything.

    Raises:
        EdgeRecoverError: the teacher cannot be opened or gives no gradients, or the images diverged.
    """
    import numpy as np
    import torch

    from edgerecover.commands.synthesize import synthesize_images
    from edgerecover.config import load_profile
    from edgerecover.stages.request import DreamRequest

    with errors_in_python(dream), place_of(None, run_folder, "teacher") as place:
        loaded_profile = load_profile(os.fspath(profile))
        require_least("num_images", num_images, 1)
        require_least("seed", seed, 0)
        require_choice("device", device, DEVICES)
        given = network_of(teacher, "teacher", place.inputs)
        require_checkpoint(given.path)
        request = DreamRequest(
            teacher=given.path,
            profile=_with_images(loaded_profile, num_images),
            out=place.scratch / "images",
            work=place.work,
            splits=("train",),
            flags=flags_from(
                architecture_of(given, arch, "arch"),
                input_shape,
                mean,
                std,
                pixel_range,
                trust_code=trust_code,
                trust_pickle=trust_pickle,
                assume=assume,
                task=task,
            ),
            record=path_of(record),
            seed=seed,
            device=device,
        )
        with watching("dream", place.work, progress) as shown:
            done = synthesize_images(request, shown)
        images = torch.from_numpy(np.load(request.out / "train.npy", allow_pickle=False))
        has_labels = "train_targets.npy" in done.files
        labels = torch.from_numpy(np.load(request.out / "train_targets.npy")) if has_labels else None
        return Dreams(images, labels)


def _with_images(profile: Profile, num_images: int) -> Profile:
    """The profile with another number of images to train on, for teachers without norms too."""
    number = {"num_train": num_images}
    changes: dict[str, object] = {"synthesis": profile.synthesis.model_copy(update=number)}
    if (others := profile.without_norms) is not None:
        changed = others.synthesis.model_copy(update=number)
        changes["without_norms"] = others.model_copy(update={"synthesis": changed})
    return profile.model_copy(update=changes)
