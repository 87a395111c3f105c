"""Which runtime runs a model on this machine: the target's own where this machine is the target, else a substitute.

Everything that runs or times a model asks here, so that desk, gate and device agree.
"""

# Shapes: C channels, H height, W width, K classes.

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import NumValues
from edgerecover.artifacts.engines import ENGINE_RUNTIMES
from edgerecover.artifacts.exported import Int8Sums
from edgerecover.artifacts.machine import Deployment
from edgerecover.runtime.machine.host import is_this_machine
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.runtime.session.opened import Opened
from edgerecover.runtime.session.opening import open_model
from edgerecover.runtime.session.providers import CPU

CPUS = ("CPUExecutionProvider", "CPU")
"""What onnxruntime and OpenVINO call the processor."""


@dataclass(frozen=True)
class Surface:
    """A runtime with the providers to ask it for."""

    runtime: str
    providers: tuple[str, ...] = (CPU,)
    int8_sums: Int8Sums = Int8Sums.EXACT
    """How products of 8-bit numbers are added up where agreement is measured; what is timed runs as it runs."""

    def open(
        self, path: Path, shape_CHW: tuple[int, int, int] | None = None, num_values: NumValues | None = None
    ) -> Opened:
        """Open a file to measure its agreement.

        Raises:
            EdgeRecoverError: it does not open there.
        """
        return open_model(
            path,
            self.runtime,
            self.providers,
            strict=True,
            shape_CHW=shape_CHW,
            num_values=num_values,
            exact_int8=self.int8_sums is Int8Sums.EXACT,
        )


def surface_of(deployment: Deployment) -> Surface:
    """Where this machine runs a model: the target's runtime where this is the target, else onnxruntime on the CPU."""
    if is_this_machine(deployment.machine):
        return Surface(deployment.runtime, deployment.providers, int8_sums_of(deployment))
    return Surface("onnxruntime", int8_sums=int8_sums_of(deployment))


def file_surface_of(deployment: Deployment) -> Surface:
    """Where this machine runs an ONNX file as it is: like `surface_of`, with onnxruntime instead of an engine."""
    own = surface_of(deployment)
    return Surface("onnxruntime", int8_sums=own.int8_sums) if own.runtime in ENGINE_RUNTIMES else own


def surface_on(runtime: str, deployment: Deployment | None = None) -> Surface:
    """Where this machine runs a model in a runtime of the user's choice: with the target's providers if it is its own.

    Args:
        runtime: one of `opening.RUNTIMES`.
        deployment: of the target; None: there is no target.
    """
    if deployment is None:
        return Surface(runtime)
    own = surface_of(deployment)
    return own if runtime == own.runtime else Surface(runtime, int8_sums=own.int8_sums)


def surfaces_of(deployment: Deployment) -> tuple[Surface, ...]:
    """Where the desk holds a race: on the first surface of ONNX files, and on the CPU in the target's other runtimes.

    What needs an engine is raced on the device by the bundle's runner. MNN runs a file that was converted from the ONNX
    file, and is judged by what onnxruntime makes of that: it is never the first.
    """
    own = file_surface_of(deployment)
    first = Surface("onnxruntime", int8_sums=own.int8_sums) if own.runtime == MNN else own
    named = (*([MNN] if deployment.runtime == MNN else []), *deployment.also_runtimes)
    others = (runtime for runtime in dict.fromkeys(named) if runtime != first.runtime)
    return (first, *(Surface(runtime, int8_sums=first.int8_sums) for runtime in others))


def device_surfaces_of(deployment: Deployment, runtime: str | None = None) -> tuple[Surface, ...]:
    """Where a bundle's runner races its models: in all runtimes of the target, engines among them.

    A machine that is not the target cannot be expected to have its runtimes.

    Args:
        deployment: of the bundle's target.
        runtime: the one that the user asks for; None: all.
    """
    if runtime is not None:
        return (surface_on(runtime, deployment),)
    also = deployment.also_runtimes if is_this_machine(deployment.machine) else ()
    return (surface_of(deployment), *(surface_on(name, deployment) for name in also))


def int8_sums_of(deployment: Deployment) -> Int8Sums:
    """How int8 is added up where agreement is measured: as this host does only if its CPU is what the target uses."""
    on_cpu = deployment.providers[0] in CPUS
    return Int8Sums.HOST if on_cpu and is_this_machine(deployment.machine) else Int8Sums.EXACT
