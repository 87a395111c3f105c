"""What a variant costs: its decisions on the calibration images compared with the float32 file's."""

# Shapes: N images, K classes.

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Int8Sums
from edgerecover.export.precision.ranges import Images
from edgerecover.runtime.session.onnxruntime import CPU, open_session

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BATCH = 64


@dataclass(frozen=True)
class Cost:
    """What one variant costs."""

    points_lost: float
    """How far agreement with the teacher is below the float32 file's, in percentage points."""
    kl: float
    """Mean KL(float32 || variant) in nats."""


class Trial:
    """The float32 file's scores on all calibration images, and the teacher's decisions."""

    def __init__(
        self, float32: Path, images: Images, teacher_NK: NDArray[Any], shape: tuple[int, int, int], sums: Int8Sums
    ) -> None:
        if teacher_NK.ndim != 2 or len(teacher_NK) != len(images):
            raise ValueError(f"teacher scores (N, K) for {len(images)} images were expected, found {teacher_NK.shape}")
        self.images = images
        self._shape, self._sums = shape, sums
        self._decided_N = teacher_NK.argmax(1)
        self._num_classes = teacher_NK.shape[1]
        self._float32_NK = self._scores(float32, len(images))

    def cost_of(self, model: onnx.ModelProto, *, num_images: int | None = None) -> Cost:
        """Run the variant on the CPU, on the first `num_images` or all.

        Raises:
            BadInputError: onnxruntime cannot run it.
        """
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
            path = Path(folder) / "variant.onnx"
            path.write_bytes(model.SerializeToString())
            scores_NK = self._scores(path, min(num_images or len(self.images), len(self.images)))
        return self._compare(scores_NK)

    def _compare(self, scores_NK: NDArray[Any]) -> Cost:
        import numpy as np

        n = len(scores_NK)
        reference_NK, decided_N = self._float32_NK[:n], self._decided_N[:n]
        right_N, right_before_N = (
            (scores.argmax(1) == decided_N) & np.isfinite(scores).all(1) for scores in (scores_NK, reference_NK)
        )
        if not np.isfinite(scores_NK).all():
            kl = _LARGEST_KL
        else:
            log_p, log_q = _log_softmax(reference_NK), _log_softmax(scores_NK)
            kl = min(float((np.exp(log_p) * (log_p - log_q)).sum(1).mean()), _LARGEST_KL)
        return Cost(100.0 * (int(right_before_N.sum()) - int(right_N.sum())) / n, kl)

    def _scores(self, path: Path, num_images: int) -> NDArray[Any]:
        import numpy as np

        is_exact = self._sums is Int8Sums.EXACT
        session = open_session(path, [CPU], shape_CHW=self._shape, num_classes=self._num_classes, exact_int8=is_exact)
        batches = islice(self.images.batches(_BATCH), -(-num_images // _BATCH))
        return np.concatenate([session.run(np.asarray(batch_NCHW, np.float32)) for batch_NCHW in batches])[:num_images]


def _log_softmax(scores_NK: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    shifted_NK = scores_NK.astype(np.float64) - scores_NK.max(1, keepdims=True)
    result: NDArray[Any] = shifted_NK - np.log(np.exp(shifted_NK).sum(1, keepdims=True))
    return result


_LARGEST_KL = 1e9
"""In place of infinity, which JSON does not have."""
