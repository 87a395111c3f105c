"""What a user said about a model on the command line, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgerecover.artifacts import InputSpec


@dataclass(frozen=True)
class ModelFlags:
    """How to open a model, as far as the command line says; files beside the checkpoint and its keys say the rest.

    The defaults stand for a user who typed no flag.
    """

    arch: str | None = None
    """`--arch`: `file.py:factory` (relative to the working directory), `package.module:factory`, `torchvision:NAME`,
    `timm:NAME` or `transformers:FOLDER`. None: a TOML file, a card or the checkpoint's keys and shapes name it."""
    input: InputSpec | None = None
    """`--input-shape`, `--mean`, `--std` and `--pixel-range`. None: a TOML file, a card or the library's own weights
    describe the input."""
    trust_code: bool = False
    """`--trust-code`: Python that a TOML file names runs without a trust record."""
    trust_pickle: bool = False
    """`--trust-pickle`: a file that is a whole pickled module is unpickled, which runs whatever code it names."""
    assume: bool = False
    """`--assume`: an input that nobody named, and that may be another's, is accepted."""


NO_FLAGS = ModelFlags()
