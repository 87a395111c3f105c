"""Where a bundle's model comes from, and what its makers say of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """One link of the chain from the dense network to the shipped file; the key in the manifest is its name there."""

    what: str
    """For people: "dense checkpoint", "synthetic images to learn from"."""
    sha256: str
    """Of the file; of a set of images, over the digests of its images in order; of weights pruned in the run, of their
    safetensors file."""
    parents: tuple[str, ...] = ()
    """Names of what edgerecover made it from; none for what came from outside."""
    name: str = ""
    """Name of the file, where it came from outside the run."""
    file: str = ""
    """Path of the file in the bundle; "" where it is not in it."""


@dataclass(frozen=True)
class Stated:
    """What the makers of a network say of it in its TOML file; it is passed on, not checked."""

    licence: str = ""
    """SPDX expression, or the name of another licence."""
    name: str = ""
    version: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    intended_uses: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
