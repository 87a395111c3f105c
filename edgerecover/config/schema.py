"""What all kinds of TOML file share: frozen values, unknown keys refused, limited numbers, facts with a source."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all schemas: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fact(Settings, Generic[T]):
    """A value and its source: a document, a measurement, or a choice of the file's author."""

    value: T
    source: str = Field(min_length=8)
