"""What people write in TOML: targets, profiles, limits and the `model.toml` beside a checkpoint.

Each schema refuses unknown keys; a wrong file is reported with file, line and key.

- `schema`: what all of them share
- `target`, `profile`, `limits`, `model_file`: one kind of file each
- `toml`: reading a file and checking it against its schema
- `shipped`: finding targets and profiles by name or path
"""

from edgerecover.config.limits import LimitsFile, load_limits
from edgerecover.config.model_file import CardFile, ModelFile, ModelFileInput
from edgerecover.config.profile import (
    Blockwise,
    LatencySettings,
    Profile,
    ProfileGates,
    Recovery,
    Refresh,
    Synthesis,
    WithoutNorms,
    in_batches_of,
)
from edgerecover.config.schema import Fact, Settings
from edgerecover.config.shipped import load_profile, load_target, shipped_folder, shipped_names
from edgerecover.config.target import Package, Target
from edgerecover.config.toml import parse, read_toml

__all__ = [
    "Blockwise",
    "CardFile",
    "Fact",
    "LatencySettings",
    "LimitsFile",
    "ModelFile",
    "ModelFileInput",
    "Package",
    "Profile",
    "ProfileGates",
    "Recovery",
    "Refresh",
    "Settings",
    "Synthesis",
    "Target",
    "WithoutNorms",
    "in_batches_of",
    "load_limits",
    "load_profile",
    "load_target",
    "parse",
    "read_toml",
    "shipped_folder",
    "shipped_names",
]
