"""A bundle opened in Python: verified first, then read and run."""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.api.given import FilePath, path_of
from edgerecover.api.reports import Report, delete_with
from edgerecover.api.words import errors_in_python

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from edgerecover.artifacts import InputSpec
    from edgerecover.bundle.verify import Verified
    from edgerecover.runtime.session.onnxruntime import Session


@dataclass(frozen=True, eq=False, repr=False)
class Bundle(Report):
    """A bundle as it was when it was verified; its report, its manifest, and its model to run."""

    _verified: Verified

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What manifest.json and measurements.json state: versions, target, profile, lineage, licence, verdict."""
        return self._verified.fields

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all files that were verified, sorted."""
        return tuple(sorted(self._verified.files))

    @property
    def signature(self) -> str:
        """`"verified"`, `"not checked"` if no key was given, or `"absent"`."""
        return self._verified.signed.value

    @property
    def signer(self) -> str:
        """Who signed it; empty unless the signature was verified."""
        return self._verified.signer

    def read(self, path: str) -> bytes:
        """The content of one of `files`; its digest is checked again.

        Raises:
            EdgeRecoverError: there is no such file, or it has changed since the bundle was opened.
        """
        return self._verified.read(path)

    @cached_property
    def input(self) -> InputSpec:
        """The network's input: shape (C, H, W), mean, std, and range of the pixels before mean and std."""
        from edgerecover.artifacts import InputSpec, from_json
        from edgerecover.artifacts.strict_json import parse_object

        return from_json(InputSpec, parse_object(self.read("config.json"))["input"])

    def session(self) -> Session:
        """model.onnx, opened with onnxruntime on the CPU as it was judged; opened once.

        Raises:
            EdgeRecoverError: it cannot be opened, or the bundle has changed.
        """
        return self._session

    @cached_property
    def _session(self) -> Session:
        from edgerecover.artifacts import Int8Sums
        from edgerecover.bundle.carry import copy_bundle
        from edgerecover.validation.scoring import open_on_cpu

        private = Path(tempfile.mkdtemp(prefix="edgerecover-"))
        delete_with(self, private)
        copy_bundle(self._verified, private / "bundle")  # what runs is what was verified
        sums = self.details.int8_sums or Int8Sums.EXACT
        num_classes = self.details.teacher.num_classes
        return open_on_cpu(private / "bundle" / "model.onnx", self.input.shape, num_classes, sums)

    def predict(self, images_NCHW: Any) -> NDArray[numpy.float32]:
        """Class scores of images, from model.onnx on the CPU.

        Args:
            images_NCHW: network inputs (N, C, H, W), normalised with the mean and std of `input`; array or tensor.

        Returns:
            Scores (N, K).

        Raises:
            EdgeRecoverError: the model cannot be opened, or does not take such images.
        """
        import numpy as np

        values = images_NCHW.detach().cpu() if hasattr(images_NCHW, "detach") else images_NCHW
        return self.session().run(np.ascontiguousarray(values, np.float32))

    def _page(self) -> str:
        return self.read("report.html").decode()


def open_bundle(path: FilePath, *, public_key: FilePath | None = None) -> Bundle:
    """Verify a bundle and open it, as `edgerecover bundle verify` and `bundle show` do.

    Every file is compared with its digest in the manifest, and no file may be added.

    Args:
        path: folder or archive.
        public_key: PEM file; the bundle must be signed with its private key. None: a signature is not checked.

    Raises:
        EdgeRecoverError: there is no bundle, it is not what its manifest lists (VerificationError), or is not signed
            with that key.
    """
    from edgerecover.bundle.signature import PublicKey
    from edgerecover.bundle.verify import read_report, verify_bundle

    with errors_in_python(open_bundle):
        key = path_of(public_key)
        verified = verify_bundle(Path(path), PublicKey(key) if key is not None else None)
        return Bundle(read_report(verified), Path(path), verified)
