"""The demo as an ordinary run: the embedded files, copied to a folder that the user can look at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.bundle.write import check_writable
from edgerecover.config import load_profile, load_target
from edgerecover.demo import ARCHITECTURE, demo_files
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags

if TYPE_CHECKING:
    from edgerecover.stages.request import Request


def demo_request(out: Path, seed: int) -> Request:
    """Copy the demo's checkpoints to `out` and describe the run on them.

    Raises:
        BadInputError: `out` cannot be written to.
    """
    from edgerecover.stages.request import Request

    files = demo_files()
    bundle = out / "digits.onnx-generic.bundle"
    check_writable(bundle)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for source in (files.dense, files.pruned, files.model_file):
            shutil.copyfile(source, out / source.name)
    except OSError as error:
        raise BadInputError(f"--out {out}: {error.strerror or error}", hint="give a folder you can write to") from error
    return Request(
        model_path=out / files.pruned.name,
        target=load_target("onnx-generic"),
        profile=load_profile("demo"),
        out=bundle,
        work=out / ".edgerecover",
        flags=ModelFlags(ARCHITECTURE),
        teacher=out / files.dense.name,
        eval_data=files.test_images,
        seed=seed,
    )
