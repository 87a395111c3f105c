"""Everything one run found."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.engines import EngineFacts
from edgerecover.artifacts.exported import Exported, Int8Sums, Variant
from edgerecover.artifacts.judged import Accuracy, Fidelity, Gate, GateStatus, Parity, PrecisionLoss, verdict_of
from edgerecover.artifacts.latency import Latency
from edgerecover.artifacts.models import Lineage, ModelFacts, Sparsity
from edgerecover.artifacts.npu import NpuFile
from edgerecover.artifacts.outputs import TaskKind
from edgerecover.artifacts.race import Race
from edgerecover.artifacts.recovery import RecordFacts, Rung, Sheet, SyntheticFacts


@dataclass(frozen=True)
class StageTime:
    """How long one stage took."""

    stage: str
    seconds: float
    reused: bool = False


@dataclass(frozen=True)
class Report:
    """Everything one run found. The terminal, HTML, Markdown and JSON reports are views of it."""

    edgerecover_version: str
    created_utc: str
    seed: int
    device: str
    data_used: str
    """"none"; "record" when statistics of real data were shipped with the teacher (--record); "eval-only" when
    --eval-data was given (real data judged, never trained on); "record, eval-only" when both."""
    target: str
    target_description: str
    profile: str
    student: ModelFacts
    """As it came: the pruned checkpoint or, recovered elsewhere, the ONNX file itself."""
    teacher: ModelFacts
    recovered_sparsity: Sparsity
    synthetic: SyntheticFacts
    rungs: tuple[Rung, ...]
    """None at all when the file was recovered elsewhere."""
    exported: Exported
    parity: Parity | None
    """Of the float32 file; None where it, or the PyTorch network that it was made from, is not known."""
    fidelity: Fidelity
    latency: Latency
    accuracy: Accuracy | None
    sparsity_verdict: str
    gates: tuple[Gate, ...]
    stages: tuple[StageTime, ...]
    warnings: tuple[str, ...]
    tool_versions: dict[str, str]
    record: RecordFacts | None = None
    """None when recovery had the teacher alone."""
    same_architecture: bool = True
    """The student is the teacher with zeros or fewer channels; else it was distilled into another network."""
    lineage: Lineage | None = None
    """Of the student as it came; None in reports that were written before it was looked at."""
    precision_loss: PrecisionLoss | None = None
    """Where the file is of lower precision than float32, and what it was made from is known."""
    int8_sums: Int8Sums | None = None
    """Where an int8 file was judged."""
    variants: tuple[Variant, ...] = ()
    """Files of the network in each precision that was made, float32 first; none where the file came from elsewhere."""
    race: Race | None = None
    """None where there was one file alone."""
    engines: tuple[EngineFacts, ...] = ()
    """Built on this machine, for the target's GPU."""
    npu: tuple[NpuFile, ...] = ()
    """Compiled on this machine for the target's NPU, and run in its emulation."""
    classes: tuple[str, ...] = ()
    """Names by class index; empty where they are not known."""
    sheet: Sheet | None = None
    """Of the images in the bundle's contact sheet; None where there is none."""

    @property
    def task(self) -> TaskKind:
        """What the network is for; reports from before there were tasks are of one-label networks."""
        return self.teacher.output.task if self.teacher.output else TaskKind.ONE_LABEL

    @property
    def variant(self) -> Variant | None:
        """The one that is shipped."""
        if self.race is None:
            return None
        return next(variant for variant in self.variants if variant.precision is self.race.shipped.precision)

    def class_name(self, number: int) -> str:
        """Of a class, for people."""
        return self.classes[number] if number < len(self.classes) else f"class {number}"

    @property
    def before(self) -> str:
        """What the student is called before recovery."""
        return "pruned" if self.same_architecture else "as it came"

    @property
    def verdict(self) -> GateStatus:
        """The worst gate; a gate that needs the device does not count against the run."""
        return verdict_of(self.gates)
