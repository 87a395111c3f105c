"""Several outputs, each with a measure of its own. Shapes: N images, D numbers for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import OutputSpec
from edgerecover.tasks.measure.base import Measure, Words

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N


class Several(Measure):
    """The weighted mean of what an image counts for each output, answers being read output by output."""

    words: ClassVar[Words] = Words(
        "weighted agreement",
        "weighted agreement with the teacher",
        "weighted accuracy",
        "answers",
        "An image counts the weighted mean of what it counts for each output, each by the measure of its own task.",
        score="value",
    )

    def __init__(self, output: OutputSpec, measure_of: Callable[[OutputSpec], Measure]) -> None:
        super().__init__(output)
        self._parts = tuple((part.name, columns, measure_of(part.output)) for part, columns in output.columns)
        self._weights = {part.name: part.weight for part in output.parts}

    @property
    def parts(self) -> tuple[tuple[str, slice, Measure], ...]:
        """Each output's name, numbers among the D and measure."""
        return self._parts

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """A structured array (N,) with a field of answers for each output."""
        self._require(outputs_ND)
        return join({name: measure.read(outputs_ND[:, columns]) for name, columns, measure in self._parts})

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """Weighted mean over outputs."""
        return self._mean(measure.share(answers[name], reference[name]) for name, _, measure in self._parts)

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """The same with a structured array of each output's truth."""
        return self._mean(measure.share_of_truth(answers[name], truth[name]) for name, _, measure in self._parts)

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """Weighted mean over outputs."""
        return self._mean(
            measure.distance(reference_ND[:, columns], outputs_ND[:, columns]) for _, columns, measure in self._parts
        )

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """Where one of the outputs may answer otherwise."""
        import numpy as np

        near = (measure.is_near(reference_ND[:, columns], distance) for _, columns, measure in self._parts)
        near_N: NDArray[numpy.bool_] = np.logical_or.reduce([*near])
        return near_N

    def chance(self, reference: Answers) -> float:
        """That of each output: one answer to every image holds one for each of them."""
        import numpy as np

        return float(self._mean(np.array([measure.chance(reference[name])]) for name, _, measure in self._parts)[0])

    def _constants(self, reference: Answers) -> Iterable[Any]:
        """None: `chance` asks the outputs."""
        return ()

    def as_logits(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """Each output as its own `distance` takes it."""
        import numpy as np

        return np.concatenate([measure.as_logits(outputs_ND[:, columns]) for _, columns, measure in self._parts], 1)

    def _mean(self, of_parts: Iterable[NDArray[Any]]) -> NDArray[numpy.float64]:
        import numpy as np

        return np.average([*of_parts], axis=0, weights=[*self._weights.values()])


def join(parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """A structured array (N,) with a field for each array, whose first axis is that of the images."""
    import numpy as np

    size = len(next(iter(parts.values())))
    joined_N = np.empty(size, [(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
    for name, part in parts.items():
        joined_N[name] = part
    return joined_N
