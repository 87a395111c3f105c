"""`model.toml` beside a checkpoint: architecture, teacher, classes, input, licence and card."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edgerecover.artifacts import InputSpec, Stated, TaskName
from edgerecover.config.schema import Count, Positive, Settings


class ModelFileInput(Settings):
    """`[input]` of model.toml."""

    shape: tuple[Count, Count, Count]
    """C, H, W."""
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest pixel before mean and std; [0, 255] for networks that take raw bytes."""

    @field_validator("range")
    @classmethod
    def _check_ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the lowest pixel must come before the highest")
        return value

    @model_validator(mode="after")
    def _check_channels(self) -> ModelFileInput:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(f"{name} has {len(values)} values for {self.shape[0]} channels")
        return self

    @property
    def names_scale(self) -> bool:
        """Whether it says anything of mean and std."""
        return self.mean is not None or self.std is not None

    def to_spec(self) -> InputSpec:
        """The value that stages use; a missing mean is 0, a missing std is 1."""
        channels = self.shape[0]
        return InputSpec(self.shape, self.mean or (0.0,) * channels, self.std or (1.0,) * channels, self.range)


class OutputTable(Settings):
    """`[outputs.NAME]` of model.toml: one of several outputs."""

    task: TaskName | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Of the sum of all weights; 0 leaves the output out."""
    classes: tuple[str, ...] | None = None


Line = Annotated[str, Field(max_length=2000)]
Lines = Annotated[tuple[Line, ...], Field(max_length=100)]


class CardFile(Settings):
    """`[card]` of model.toml: copied to the bundle's manifest, model card and bill of materials."""

    name: Line = ""
    version: Line = ""
    description: Line = ""
    authors: Lines = ()
    intended_uses: Lines = ()
    limitations: Lines = ()


class ModelFile(Settings):
    """`model.toml` beside a checkpoint, instead of flags."""

    architecture: str | None = None
    """`file.py:factory`, `package.module:factory`, `torchvision:NAME` or `timm:NAME`."""
    teacher: str | None = None
    """Path of the dense checkpoint, relative to this file."""
    teacher_architecture: str | None = None
    """The teacher's architecture if it is not the student's; same syntax as `architecture`."""
    task: TaskName | None = None
    """What the network is for; its outputs tell where nothing is said."""
    outputs: dict[str, OutputTable] = Field(default_factory=dict)
    """Of several outputs, by the name that the network gives each."""
    classes: tuple[str, ...] | None = None
    input: ModelFileInput | None = None
    licence: Line = ""
    """SPDX expression, or the name of another licence."""
    card: CardFile = CardFile()

    @model_validator(mode="after")
    def _check_tasks(self) -> ModelFile:
        for name, output in self.outputs.items():
            if self.task and output.task not in (None, self.task):
                raise ValueError(f"task is {self.task!r}, and that of [outputs.{name}] is {output.task!r}")
            if self.classes and output.classes:
                raise ValueError(f"classes are named, and those of [outputs.{name}] too: name them there alone")
        return self

    def stated(self) -> Stated:
        """Licence and card, as bundles store them."""
        return Stated(self.licence, **self.card.model_dump())
