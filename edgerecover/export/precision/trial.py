"""What a variant costs: its answers on the calibration images compared with the float32 file's."""

# Shapes: N images, D scores for each.

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Int8Sums
from edgerecover.export.precision.ranges import Images
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.tasks.measure import Measure

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """Synthetic images from which ranges are measured and variants chosen, and the teacher's scores on them."""

    images: Images
    teacher_scores: NDArray[Any]
    """Of the teacher, (N, D), as files give them, on all images."""
    measure: Measure
    """What agreement with the teacher means."""


@dataclass(frozen=True)
class Cost:
    """What one variant costs."""

    points_lost: float
    """How far agreement with the teacher is below the float32 file's, in percentage points."""
    distance: float
    """Mean distance of its scores from the float32 file's: of classes, KL(float32 || variant) in nats."""


class Trial:
    """The float32 file's scores on all calibration images, and the teacher's answers."""

    def __init__(self, float32: Path, calibration: Calibration, shape: tuple[int, int, int], sums: Int8Sums) -> None:
        images, teacher_ND = calibration.images, calibration.teacher_scores
        if teacher_ND.ndim != 2 or len(teacher_ND) != len(images):
            raise ValueError(f"teacher scores (N, D) for {len(images)} images were expected, found {teacher_ND.shape}")
        self.images = images
        self._shape, self._sums, self._measure = shape, sums, calibration.measure
        self._teacher_answers = calibration.measure.read(teacher_ND)
        self._float32_ND = self._scores(float32, len(images))

    def cost_of(self, model: onnx.ModelProto, *, num_images: int | None = None) -> Cost:
        """Run the variant on the CPU, on the first `num_images` or all.

        Raises:
            BadInputError: onnxruntime cannot run it.
        """
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
            path = Path(folder) / "variant.onnx"
            path.write_bytes(model.SerializeToString())
            scores_ND = self._scores(path, min(num_images or len(self.images), len(self.images)))
        return self._compare(scores_ND)

    def _compare(self, scores_ND: NDArray[Any]) -> Cost:
        import numpy as np

        n, measure = len(scores_ND), self._measure
        reference_ND = self._float32_ND[:n]
        agreed, agreed_before = (
            float((measure.share(measure.read(scores), self._teacher_answers[:n]) * np.isfinite(scores).all(1)).sum())
            for scores in (scores_ND, reference_ND)
        )
        distance_N = measure.distance(measure.as_logits(reference_ND), measure.as_logits(scores_ND))
        return Cost(100.0 * (agreed_before - agreed) / n, min(float(distance_N.mean()), _LARGEST_DISTANCE))

    def _scores(self, path: Path, num_images: int) -> NDArray[Any]:
        import numpy as np

        is_exact = self._sums is Int8Sums.EXACT
        num_values = self._measure.output.num_values
        session = open_session(path, [CPU], shape_CHW=self._shape, num_values=num_values, exact_int8=is_exact)
        batches = islice(self.images.batches(_BATCH), -(-num_images // _BATCH))
        return np.concatenate([session.run(np.asarray(batch_NCHW, np.float32)) for batch_NCHW in batches])[:num_images]


_LARGEST_DISTANCE = 1e9
"""In place of infinity, which JSON does not have."""
