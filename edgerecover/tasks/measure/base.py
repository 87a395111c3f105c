"""What agreement means for a task: every image counts from 0 to 1.

Answers are what is read from a network's outputs, and all that is compared: a class, a set of labels, a vector, a map.
For answers that are right or wrong a mean over images is a proportion. For others it is a mean of numbers from 0 to 1,
whose variance is at most that of a proportion with the same mean: intervals of proportions hold for it, and are wide.

Shapes: N images, D numbers for each.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import Activation, OutputSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy
    from numpy.typing import NDArray

    Shares_N = NDArray[numpy.float64]
    """For each image a number from 0 to 1."""


Answers = Any
"""Of a network, one for each image along the first axis: a numpy array of what its measure reads."""
_SMALLEST = 1e-38
"""Stands for a probability that float32 rounds to 0; its logarithm is finite."""
_MOST_FOR_CHANCE = 256
"""Images: maps and embeddings are large, and a level needs no decimal."""
_ROUNDING = 2.0**-24
"""Half of what float32 can tell from 1."""


@dataclass(frozen=True)
class Words:
    """What a task's numbers are called, in reports."""

    name: str
    """Of what is measured, with the teacher or with the truth: "agreement" of one-label networks, "mean IoU"."""
    agreement: str
    """"agreement with the teacher" of one-label networks; "mean IoU with the teacher"."""
    truth: str
    """Of a network on real images with truth: "accuracy", "mean IoU"."""
    answers: str
    """Of a network: "decisions", "label sets"."""
    rule: str
    """How much one image counts, in sentences for reports."""
    score: str = "logit"
    """What an output is made of: "logit", "value"."""
    is_graded: bool = True
    """An image may count less than 1 and more than 0, so that a mean is no share of the images."""

    @property
    def with_pytorch(self) -> str:
        """As `agreement`, with the file's PyTorch network: "mean IoU with PyTorch"."""
        return self.agreement.replace("the teacher", "PyTorch")

    @property
    def alike(self) -> str:
        """Of images to which two give the same answer: "decided alike"."""
        return "answered alike" if self.is_graded else "decided alike"

    def changed(self, amount: float, num_images: int) -> str:
        """How many answers differ, or how far: "3 of 256 decisions changed", "answers differ by 1.2 %"."""
        if self.is_graded:
            return f"answers differ by {100 * amount / num_images:.1f} %"
        return f"{amount:.0f} of {num_images} {self.answers} changed"


class Measure(abc.ABC):
    """Agreement and truth of one task."""

    words: ClassVar[Words]
    has_classes: ClassVar[bool] = False
    """Answers are class indices, one for each image: they can be counted class by class."""
    least_same: ClassVar[float] = 1.0
    """Share from which two answers to one image count as the same, where a file is checked on another machine."""

    def __init__(self, output: OutputSpec) -> None:
        self.output = output

    @property
    def parts(self) -> tuple[tuple[str, slice, Measure], ...]:
        """Each output's name, numbers among the D and measure; one that stands for all is nameless."""
        return (("", slice(None), self),)

    def quantities(self, outputs_ND: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Of outputs that hold several quantities, each by name, with a first axis of images; else none."""
        return {}

    @abc.abstractmethod
    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Answers of outputs (N, D), as the network or its file gives them; an answer that is no number matches none.

        Raises:
            ValueError: the outputs have another shape.
        """

    @abc.abstractmethod
    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """How far each answer is the reference's, 0 to 1; two answers that are no numbers share nothing.

        Give all images at once: a measure may ask which of them an answer is nearest to, or how much they vary.
        """

    @abc.abstractmethod
    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """How right each answer is, 0 to 1, where `truth` is what real images come with; all images at once."""

    @abc.abstractmethod
    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """How far outputs are from a reference's, for each image (N,); infinite where they are no numbers.

        It tells apart what shares the same answers: the divergence of two distributions, or a relative error.
        Both are logits, or values.
        """

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """For each image (N,), whether outputs that are off by `distance` may answer otherwise."""
        import numpy as np

        return np.zeros(len(reference_ND), np.bool_)

    def chance(self, reference: Answers) -> float:
        """Mean share of one and the same answer to every image, 0 to 1: the best of a few, on the first images.

        Agreement proves nothing that is no higher: a network that never looks at the image reaches it too.
        """
        import numpy as np

        some = reference[:_MOST_FOR_CHANCE]
        return max(
            float(self.share(np.broadcast_to(constant, some.shape), some).mean()) for constant in self._constants(some)
        )

    @abc.abstractmethod
    def _constants(self, reference: Answers) -> Iterable[Any]:
        """Answers to one image that would be near to many of the reference's."""

    def as_logits(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """Outputs as `distance` takes them: what comes before the network's last softmax or sigmoid."""
        import numpy as np

        if self.output.activation is Activation.NONE:
            return outputs_ND
        wide_ND = outputs_ND.astype(np.float64)
        if self.output.activation is Activation.SOFTMAX:
            return np.log(np.maximum(wide_ND, _SMALLEST))
        inside_ND = np.clip(wide_ND, _ROUNDING, 1 - _ROUNDING)
        logits_ND: NDArray[Any] = np.log(inside_ND) - np.log1p(-inside_ND)
        return logits_ND

    def _require(self, outputs_ND: NDArray[Any]) -> None:
        if outputs_ND.ndim != 2 or outputs_ND.shape[1] != self.output.num_values:
            raise ValueError(f"outputs (N, {self.output.num_values}) were expected, found {outputs_ND.shape}")
