"""What a variant costs: its answers on the calibration images compared with the float32 file's."""

# Shapes: N images, D scores for each.

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Int8Sums
from edgerecover.export.precision.ranges import Images
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.tasks.measure import Answers, Measure, Outputs, Words, at_once, collect

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """Synthetic images from which ranges are measured and variants chosen, and the teacher's answers to them."""

    images: Images
    teacher_answers: Answers
    """Of the teacher, on all images."""
    measure: Measure
    """What agreement with the teacher means."""


@dataclass(frozen=True)
class Cost:
    """What one variant costs."""

    points_lost: float
    """How far agreement with the teacher is below the float32 file's, in percentage points."""
    distance: float
    """Mean distance of its scores from the float32 file's: of classes, KL(float32 || variant) in nats.

    Of maps, on the images whose scores are kept.
    """


class Trial:
    """What the float32 file gives for all calibration images, and the teacher's answers."""

    def __init__(self, float32: Path, calibration: Calibration, shape: tuple[int, int, int], sums: Int8Sums) -> None:
        images, answers = calibration.images, calibration.teacher_answers
        if len(answers) != len(images):
            raise ValueError(f"the teacher's answers to {len(images)} images were expected, found {len(answers)}")
        self.images = images
        self._shape, self._sums, self._measure = shape, sums, calibration.measure
        self._teacher_answers = answers
        self._float32 = self._outputs(float32, len(images))

    @property
    def words(self) -> Words:
        """What agreement with the teacher is called."""
        return self._measure.words

    def cost_of(self, model: onnx.ModelProto, *, num_images: int | None = None) -> Cost:
        """Run the variant on the CPU, on the first `num_images` or all.

        Raises:
            BadInputError: onnxruntime cannot run it.
        """
        with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
            path = Path(folder) / "variant.onnx"
            path.write_bytes(model.SerializeToString())
            found = self._outputs(path, min(num_images or len(self.images), len(self.images)))
        return self._compare(found)

    def _compare(self, found: Outputs) -> Cost:
        n, measure = len(found), self._measure
        agreed, agreed_before = (
            float((measure.share(outputs.answers[:n], self._teacher_answers[:n]) * outputs.is_finite[:n]).sum())
            for outputs in (found, self._float32)
        )
        reference_mD = self._float32.scores[: len(found.scores)]
        distance_N = measure.distance(measure.as_logits(reference_mD), measure.as_logits(found.scores))
        return Cost(100.0 * (agreed_before - agreed) / n, min(float(distance_N.mean()), _LARGEST_DISTANCE))

    def _outputs(self, path: Path, num_images: int) -> Outputs:
        import numpy as np

        is_exact = self._sums is Int8Sums.EXACT
        output = self._measure.output
        session = open_session(
            path, [CPU], shape_CHW=self._shape, num_values=output.num_values_in_file, exact_int8=is_exact
        )
        size = at_once(output, _BATCH)

        def outputs() -> Iterator[NDArray[Any]]:
            missing = num_images
            for batch_NCHW in islice(self.images.batches(size), -(-num_images // size)):
                yield session.run(np.asarray(batch_NCHW, np.float32))[:missing]
                missing -= len(batch_NCHW)

        return collect(outputs(), num_images, self._measure)


_LARGEST_DISTANCE = 1e9
"""In place of infinity, which JSON does not have."""
