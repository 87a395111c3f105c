"""edgerecover from Python: each function is a command of the command line, over the same stages.

`edgerecover` itself exports these names and loads this package with the first of them; heavy libraries are loaded by
the call that needs them.
"""

from edgerecover.api.bundles import Bundle, open_bundle
from edgerecover.api.dreams import Dreams, dream
from edgerecover.api.networks import Inspection, PrunedModel, inspect, prune
from edgerecover.api.reports import RecoveryReport, Report
from edgerecover.api.runs import recover, validate
from edgerecover.errors import EdgeRecoverError

__all__ = [
    "Bundle",
    "Dreams",
    "EdgeRecoverError",
    "Inspection",
    "PrunedModel",
    "RecoveryReport",
    "Report",
    "dream",
    "inspect",
    "open_bundle",
    "prune",
    "recover",
    "validate",
]
