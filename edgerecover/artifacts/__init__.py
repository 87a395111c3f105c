"""The frozen values that stages hand to each other and that reports store. Stdlib only: devices import this too."""

from edgerecover.artifacts.codec import from_json, sha256_of, to_json
from edgerecover.artifacts.device import DeviceResult, DeviceTask, GoldenCheck, Tried
from edgerecover.artifacts.exported import Exported, Precision, TwoFour, Variant
from edgerecover.artifacts.judged import Accuracy, Fidelity, Gate, GateStatus, Parity, Predicted, Proportion, verdict_of
from edgerecover.artifacts.latency import Host, Latency
from edgerecover.artifacts.machine import Gpu, TargetMachine
from edgerecover.artifacts.models import Descent, InputSpec, LayerSparsity, Lineage, ModelFacts, Pattern, Sparsity
from edgerecover.artifacts.recovery import RecordFacts, Rung, SyntheticFacts
from edgerecover.artifacts.report import Report, StageTime

__all__ = [
    "Accuracy",
    "Descent",
    "DeviceResult",
    "DeviceTask",
    "Exported",
    "Fidelity",
    "Gate",
    "GateStatus",
    "GoldenCheck",
    "Gpu",
    "Host",
    "InputSpec",
    "Latency",
    "LayerSparsity",
    "Lineage",
    "ModelFacts",
    "Parity",
    "Pattern",
    "Precision",
    "Predicted",
    "Proportion",
    "RecordFacts",
    "Report",
    "Rung",
    "Sparsity",
    "StageTime",
    "SyntheticFacts",
    "TargetMachine",
    "Tried",
    "TwoFour",
    "Variant",
    "from_json",
    "sha256_of",
    "to_json",
    "verdict_of",
]
