"""The frozen values that stages hand to each other and that reports store. Stdlib only: devices import this too."""

from edgerecover.artifacts.codec import from_json, sha256_of, to_json
from edgerecover.artifacts.device import DeviceResult, DeviceTask, GoldenCheck, Tried
from edgerecover.artifacts.engines import (
    ENGINE_RUNTIMES,
    TENSORRT,
    TENSORRT_RTX,
    Acceptance,
    BatchRange,
    EngineFacts,
    EngineKey,
    EngineRecipe,
    HardwareCompatibility,
    SparseLayers,
)
from edgerecover.artifacts.exported import Exported, Precision, PrecisionTry, RefusedVariant, TwoFour, Variant
from edgerecover.artifacts.judged import (
    Accuracy,
    Fidelity,
    Gate,
    GateStatus,
    Parity,
    PrecisionLoss,
    Predicted,
    Proportion,
    paired_interval,
    verdict_of,
)
from edgerecover.artifacts.latency import Conditions, Energy, Fingerprint, Host, Latency, Ratio
from edgerecover.artifacts.machine import Gpu, TargetMachine
from edgerecover.artifacts.models import Descent, InputSpec, LayerSparsity, Lineage, ModelFacts, Pattern, Sparsity
from edgerecover.artifacts.origin import Origin, Stated
from edgerecover.artifacts.race import Outcome, Race, Runner, Twin
from edgerecover.artifacts.recovery import RecordFacts, Rung, SyntheticFacts
from edgerecover.artifacts.report import Report, StageTime

__all__ = [
    "ENGINE_RUNTIMES",
    "TENSORRT",
    "TENSORRT_RTX",
    "Acceptance",
    "Accuracy",
    "BatchRange",
    "Conditions",
    "Descent",
    "DeviceResult",
    "DeviceTask",
    "Energy",
    "EngineFacts",
    "EngineKey",
    "EngineRecipe",
    "Exported",
    "Fidelity",
    "Fingerprint",
    "Gate",
    "GateStatus",
    "GoldenCheck",
    "Gpu",
    "HardwareCompatibility",
    "Host",
    "InputSpec",
    "Latency",
    "LayerSparsity",
    "Lineage",
    "ModelFacts",
    "Origin",
    "Outcome",
    "Parity",
    "Pattern",
    "Precision",
    "PrecisionLoss",
    "PrecisionTry",
    "Predicted",
    "Proportion",
    "Race",
    "Ratio",
    "RecordFacts",
    "RefusedVariant",
    "Report",
    "Rung",
    "Runner",
    "SparseLayers",
    "Sparsity",
    "StageTime",
    "Stated",
    "SyntheticFacts",
    "TargetMachine",
    "Tried",
    "Twin",
    "TwoFour",
    "Variant",
    "from_json",
    "paired_interval",
    "sha256_of",
    "to_json",
    "verdict_of",
]
