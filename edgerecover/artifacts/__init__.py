"""The frozen values that stages hand to each other and that reports store. Stdlib only: devices import this too."""

from edgerecover.artifacts.codec import from_json, sha256_of, to_json
from edgerecover.artifacts.exported import Exported, Precision, TwoFour, Variant
from edgerecover.artifacts.judged import Accuracy, Fidelity, Gate, GateStatus, Parity, Predicted, Proportion
from edgerecover.artifacts.latency import Conditions, Energy, Fingerprint, Host, Latency, Ratio
from edgerecover.artifacts.models import Descent, InputSpec, LayerSparsity, Lineage, ModelFacts, Pattern, Sparsity
from edgerecover.artifacts.recovery import RecordFacts, Rung, SyntheticFacts
from edgerecover.artifacts.report import Report, StageTime

__all__ = [
    "Accuracy",
    "Conditions",
    "Descent",
    "Energy",
    "Exported",
    "Fidelity",
    "Fingerprint",
    "Gate",
    "GateStatus",
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
    "Ratio",
    "RecordFacts",
    "Report",
    "Rung",
    "Sparsity",
    "StageTime",
    "SyntheticFacts",
    "TwoFour",
    "Variant",
    "from_json",
    "sha256_of",
    "to_json",
]
