"""The examination: what is here, what is missing, and one command for each thing that is."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from edgerecover.artifacts import Gpu, Host
from edgerecover.config import Package, Target, load_target, shipped_names
from edgerecover.doctor.asking import Answer, Ask, ask, ask_module, python_of, systems_copies, this_python
from edgerecover.doctor.findings import Diagnosis, Finding, Status, fix_here
from edgerecover.errors import pip_line
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.machine.host import differences, is_target, this_host

LEAST_FREE_BYTES = 2_000_000_000
"""Choice: dreams of a large network, its checkpoints and its files of three precisions fit into it."""

_CPU = "CPUExecutionProvider"
_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm")
"""Distributions that all bring one and the same folder `onnxruntime`."""
_OPTIONAL = (
    ("openvino", "'edgerecover[openvino]'"),
    ("MNN", "'edgerecover[mnn]'"),
    ("tensorrt_rtx", "'edgerecover[tensorrt-rtx]'"),
)
"""Runtimes that some targets use or race, where none was named."""
_HOST_PART = {
    "measure": "It can run its files for host latency",
    "build": "It can build its engine, not run it",
    "parse": "It can ask TensorRT-RTX's parser whether TensorRT will take the file",
    "emulate": "It can compile its files for the NPU and emulate it, not time it",
    "judge": "It judges its files with onnxruntime on the CPU, no more",
}


def examine(
    target: Target | None = None, *, host: Host | None = None, ask: Ask = ask, progress: Progress = SILENT
) -> Diagnosis:
    """Look at this machine and, with a target, at what is needed to make a bundle for it here, or to run one.

    Args:
        target: a device; None looks at edgerecover itself alone.
        host: another machine's description, for tests.
        ask: what runs the probes; tests give a fake.
        progress: is told of each part that was looked at; torch and the runtimes take seconds.
    """
    host = host or this_host()
    here = is_target(target.needs, host) if target else None
    covered = {package.module for package in target.packages} if target else set()
    parts: list[Callable[[], Iterable[Finding]]] = [
        lambda: [_machine(host), _python(), *_requirements()],
        lambda: _torch(ask, host),
        lambda: _onnxruntime(ask),
        lambda: [_optional(ask, *optional) for optional in _OPTIONAL if optional[0] not in covered],
        lambda: [*_driver(ask, host), *_disk(), _ssh()],
        lambda: _for_target(target, host, ask) if target is not None else [],
    ]
    findings: list[Finding] = []
    with progress.task("examine this machine", len(parts), "parts") as task:
        for part in parts:
            findings += part()
            task.advance()
    return Diagnosis(
        host=host,
        targets_here=_targets_of(host),
        target=target.name if target else None,
        is_target=here,
        findings=tuple(findings),
    )


def _targets_of(host: Host) -> tuple[str, ...]:
    return tuple(name for name in shipped_names("targets") if is_target(load_target(name).needs, host))


def _machine(host: Host) -> Finding:
    parts = [host.board, f"{host.cpu} ({host.machine})", f"{host.num_cores} cores", host.system]
    parts += [f"Jetson Linux {host.l4t}"] if host.l4t else []
    parts += [_gpu(gpu) for gpu in host.gpus]
    return Finding("machine", Status.OK, ", ".join(part for part in parts if part))


def _gpu(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {gpu.compute_capability})" if gpu.compute_capability else gpu.name


def _python() -> Finding:
    return Finding("python", Status.OK, f"{sys.version.split()[0]}, {sys.executable}")


def _disk() -> Iterator[Finding]:
    folders = {folder.stat().st_dev: folder for folder in (Path(tempfile.gettempdir()), Path.cwd())}
    for folder in folders.values():
        free = shutil.disk_usage(folder).free
        found = f"{free / 1e9:.1f} GB free in {folder}"
        if free < LEAST_FREE_BYTES:
            yield Finding("disk", Status.WRONG, f"{found}; a run needs about {LEAST_FREE_BYTES / 1e9:.0f} GB")
        else:
            yield Finding("disk", Status.OK, found)


def _ssh() -> Finding:
    path = shutil.which("ssh")
    if path:
        return Finding("ssh", Status.OK, path)
    fix = "sudo apt-get install openssh-client" if shutil.which("apt-get") else ""
    return Finding("ssh", Status.NOTE, "no ssh client; only --on ssh://… needs one", fix)


def _driver(ask: Ask, host: Host) -> Iterator[Finding]:
    """Of NVIDIA GPUs, where there is one."""
    if not any(gpu.compute_capability for gpu in host.gpus):
        return
    answer = ask("cuda_driver")
    if answer.error:
        yield Finding("NVIDIA driver", Status.NOTE, f"a GPU is here, its driver does not answer: {answer.error}")
    else:
        yield Finding("NVIDIA driver", Status.OK, f"runs CUDA up to {answer.version}")


# --- edgerecover's own packages -----------------------------------------------------------------------------


def _requirements() -> list[Finding]:
    """Distributions that edgerecover asks for, without the two that are tried for real."""
    try:
        written = metadata.requires("edgerecover") or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", Status.NOTE, "edgerecover is not installed, it runs from a folder")]
    wanted = [Requirement(line) for line in written]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wanted = [one for one in wanted if one.name not in ("torch", "torchvision", "onnxruntime")]
    findings = [finding for one in wanted if (finding := _unmet(one))]
    return findings or [Finding("packages", Status.OK, f"all {len(wanted)} are here, in versions that fit")]


def _unmet(wanted: Requirement) -> Finding | None:
    fix = pip_line(f"install '{wanted.name}{wanted.specifier}'")
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Finding(wanted.name, Status.MISSING, "not installed", fix)
    if _fits(version, str(wanted.specifier)):
        return None
    return Finding(wanted.name, Status.WRONG, f"{version} is here, {wanted.specifier} is needed", fix)


def _fits(version: str, specifier: str) -> bool:
    """Whether a version is one of those; one that cannot be read is taken to be."""
    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


# --- PyTorch ------------------------------------------------------------------------------------------------


def _torch(ask: Ask, host: Host) -> Iterator[Finding]:
    """The pair: torchvision's operators are compiled against one very version of PyTorch."""
    both = ask("torchvision")
    torch = ask("torch") if both.error else both  # alone only when something is wrong: it takes seconds
    if torch.error:
        yield _broken("torch", torch, pip_line("install --force-reinstall torch torchvision"))
        return
    yield Finding("torch", Status.OK, _torch_words(torch))
    if both.error:
        yield _torchvision_broken(both, torch.version)
    else:
        yield Finding("torchvision", Status.OK, f"{both.values['torchvision']}, fits")
    yield from _torch_on_gpu(ask, torch, host)


def _torch_words(torch: Answer) -> str:
    if torch.values["gpu"]:
        return f"{torch.version}, CUDA {torch.values['built_for_cuda']} on {torch.values['gpu']}"
    return f"{torch.version}, on the CPU"


def _torchvision_broken(torchvision: Answer, torch_version: str) -> Finding:
    # A build of PyTorch from its own index ("2.10.0+cpu") needs the torchvision of that index.
    local = torch_version.partition("+")[2]
    index = f" --index-url https://download.pytorch.org/whl/{local}" if local.startswith(("cpu", "cu", "rocm")) else ""
    if torchvision.is_absent("torchvision"):
        return Finding("torchvision", Status.MISSING, "not installed", pip_line(f"install torchvision{index}"))
    return Finding(
        "torchvision",
        Status.WRONG,
        f"does not fit torch {torch_version}: {torchvision.error}",
        pip_line(f"install --force-reinstall torch torchvision{index}"),
    )


def _torch_on_gpu(ask: Ask, torch: Answer, host: Host) -> Iterator[Finding]:
    """Why PyTorch does not use a GPU that is here."""
    gpus = [gpu for gpu in host.gpus if gpu.compute_capability]
    if torch.values["gpu"] or not gpus:
        return
    built, driver = torch.values["built_for_cuda"], ask("cuda_driver")
    if not built:
        fix = pip_line("install --force-reinstall torch torchvision")
        yield Finding("torch on the GPU", Status.NOTE, f"{gpus[0].name} is here, this PyTorch has no CUDA", fix)
    elif driver.version and _major(driver.version) < _major(built):
        found = f"the driver runs CUDA up to {driver.version}, this PyTorch needs {built}: update the driver"
        yield Finding("torch on the GPU", Status.NOTE, found)
    else:
        yield Finding("torch on the GPU", Status.NOTE, f"{gpus[0].name} is here, PyTorch does not find it")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _broken(name: str, answer: Answer, fix: str) -> Finding:
    if answer.is_absent(name):
        return Finding(name, Status.MISSING, "not installed", fix)
    return Finding(name, Status.WRONG, f"is installed but does not work: {answer.error}", fix)


# --- runtimes -----------------------------------------------------------------------------------------------


def _onnxruntime(ask: Ask) -> Iterator[Finding]:
    """A session on the CPU, which every target needs; and providers that are listed but do not run."""
    yield from _rival_onnxruntimes(_find_installed(_ONNXRUNTIMES))
    answer = ask("onnxruntime")
    fix = pip_line("install 'onnxruntime>=1.22,<2'")
    if answer.error:
        yield _broken("onnxruntime", answer, fix)
        return
    failures: dict[str, str] = answer.values["failures"]
    if _CPU in failures:
        yield Finding("onnxruntime", Status.WRONG, f"{answer.version} runs nothing: {failures[_CPU]}", fix)
        return
    ran = [name for name in answer.values["listed"] if name not in failures and name != "AzureExecutionProvider"]
    yield Finding("onnxruntime", Status.OK, f"{answer.version}, really ran on {', '.join(ran)}")
    for provider, reason in failures.items():
        yield Finding(provider, Status.NOTE, f"onnxruntime lists it, but it does not run: {reason}")


def _find_installed(names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def _rival_onnxruntimes(installed: Sequence[str]) -> Iterator[Finding]:
    if len(installed) > 1:
        keep = installed[-1]
        yield Finding(
            "onnxruntime",
            Status.WRONG,
            f"{' and '.join(installed)} share one folder: the one installed last has overwritten the other",
            f"{pip_line('uninstall -y ' + ' '.join(installed))} && {pip_line(f'install {keep}')}",
        )


def _optional(ask: Ask, module: str, distribution: str) -> Finding:
    answer, fix = ask_module(ask, module), pip_line(f"install {distribution}")
    if not answer.error:
        return Finding(module, Status.OK, _words(answer))
    if answer.is_absent(module):
        return Finding(module, Status.NOTE, "not installed; some targets use it", fix)
    return Finding(module, Status.NOTE, f"is installed but does not work: {answer.error}", fix)


def _words(answer: Answer) -> str:
    devices = answer.values.get("devices")
    return f"{answer.version}, devices {', '.join(devices)}" if devices else answer.version or "is here"


# --- a target -----------------------------------------------------------------------------------------------


def _for_target(target: Target, host: Host, ask: Ask) -> Iterator[Finding]:
    here = is_target(target.needs, host)
    yield _which_machine(target, host)
    checked = [package for package in target.packages if here or package.on == "host"]
    if here:  # what the device asks of a module covers what a host asks of it
        on_device = {package.module for package in checked if package.on == "device"}
        checked = [package for package in checked if package.on == "device" or package.module not in on_device]
    for package in checked:
        yield _package(package, ask)
    if target.runner is not None and not target.runner.value:
        yield Finding("runner", Status.NOTE, target.runner.source.removeprefix("choice: "))
    if here:
        yield from _on_device(target, ask)
        return
    for package in target.packages:
        if package.on == "device":
            needed = f"{package.name} {package.version}".strip()
            yield Finding(
                "on the device", Status.NOTE, f"{'needs' if package.needed else 'can use'} {needed}", package.install
            )


def _which_machine(target: Target, host: Host) -> Finding:
    different = differences(target.needs, host)
    if not different:
        return Finding("target", Status.OK, f"this machine is {target.name}")
    found = f"this machine is not {target.name}: {'; '.join(different)}"
    sibling = _same_board(target, host)
    if sibling:  # the right board with another JetPack
        return Finding("target", Status.NOTE, found, f"edgerecover doctor --target {sibling}")
    return Finding("target", Status.NOTE, f"{found}. {_HOST_PART[target.host_part]}")


def _same_board(target: Target, host: Host) -> str | None:
    """A shipped target that this machine is, with the very board of `target`."""
    if target.board is None:
        return None
    for name in _targets_of(host):
        board = load_target(name).board
        if board is not None and board.value == target.board.value:
            return name
    return None


def _package(package: Package, ask: Ask) -> Finding:
    name = f"{package.module} (optional)" if not package.needed else package.module
    if not package.module:
        return Finding(package.name, Status.NOTE, "cannot be looked for from here", fix_here(package.install))
    missing, wrong = (Status.MISSING, Status.WRONG) if package.needed else (Status.NOTE, Status.NOTE)
    answer = ask_module(ask, package.module)
    if answer.is_absent(package.module):
        return _absence(package, name, missing)
    if answer.error:
        return Finding(name, wrong, f"is installed but does not work: {answer.error}", fix_here(package.install))
    if answer.version and not _fits(answer.version, package.version):
        found = f"{answer.version} is here, {package.version} is needed"
        return Finding(name, wrong, found, fix_here(package.install))
    return Finding(name, Status.OK, _words(answer))


def _absence(package: Package, name: str, status: Status) -> Finding:
    """Not installed; or installed by the system, for a Python that is not this one."""
    for copy in systems_copies(package.module):
        built_for = python_of(copy)
        if built_for not in ("", this_python()):
            found = f"{copy} is for Python {built_for}, and this is {this_python()}"
            return Finding(name, status, found, f"python{built_for} -m venv --system-site-packages edgerecover-venv")
    needed = f" ({package.version} is needed)" if package.version else ""
    return Finding(name, status, f"not installed{needed}", fix_here(package.install))


def _on_device(target: Target, ask: Ask) -> Iterator[Finding]:
    """What only the device itself can tell."""
    if target.python is not None and not _fits(this_python(), target.python.value):
        found = f"this Python is {this_python()}, the system's {target.python.value} is needed for its bindings"
        fix = "/usr/bin/python3 -m venv --system-site-packages edgerecover-venv"
        yield Finding("python", Status.WRONG, found, fix)
    if target.runtime.value == "onnxruntime":
        yield from _provider(target, ask)
    elif target.runtime.value == "openvino":
        yield from _openvino_device(target.providers.value[0], ask)
    elif target.runtime.value == "tensorrt":
        yield from _dla(target, ask("tensorrt"))


def _provider(target: Target, ask: Ask) -> Iterator[Finding]:
    """The first provider really runs: onnxruntime lists some that do not, and goes on on the CPU without a word."""
    first = target.providers.value[0]
    answer = ask("onnxruntime", first)
    if answer.error:
        return  # told already
    reason = answer.values["failures"].get(first)
    if reason is None:
        yield Finding(first, Status.OK, "really ran a file")
        return
    install = next((p.install for p in target.packages if p.module == "onnxruntime" and p.on == "device"), "")
    yield Finding(first, Status.WRONG, reason, fix_here(install))


def _openvino_device(first: str, ask: Ask) -> Iterator[Finding]:
    answer = ask("openvino")
    devices = answer.values.get("devices", [])
    if not answer.error and not any(device.partition(".")[0] == first for device in devices):
        fix = "sudo apt-get install intel-opencl-icd" if first == "GPU" and shutil.which("apt-get") else ""
        yield Finding("openvino", Status.WRONG, f"has no device {first}, only {', '.join(devices)}", fix)


def _dla(target: Target, answer: Answer) -> Iterator[Finding]:
    promised = target.dla_cores.value if target.dla_cores else 0
    if not answer.error and answer.values["dla_cores"] != promised:
        found = f"TensorRT sees {answer.values['dla_cores']} here, the target counts on {promised}"
        yield Finding("DLA cores", Status.NOTE, found)
