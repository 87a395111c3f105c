"""Bundles run by their own runner on an emulated Arm processor: are the answers right? It never takes the time.

    python benchmarks/emulated_arm.py BUNDLE... --root DIR [--cpus cortex-a72 cortex-a76] [--runtimes onnxruntime mnn]

QEMU emulates the processor for one program (`apt-get install qemu-user`). DIR is a folder with a Debian system for
arm64, and in `DIR/site` the wheels for aarch64; nothing is installed on this machine:

    printf 'APT::Architecture "arm64"; APT::Architectures {"arm64";}; Dir::State "DIR/apt"; Dir::Cache "DIR/apt";
        Dir::State::status "/dev/null";' > apt.conf
    mkdir -p DIR/apt/lists/partial DIR/apt/archives/partial
    export APT_CONFIG=apt.conf && apt-get update
    apt-get install --download-only --no-install-recommends python3.11 libstdc++6
    for package in DIR/apt/archives/*.deb; do dpkg-deb -x $package DIR; done
    pip download --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \\
        --python-version 311 -d wheels numpy onnxruntime MNN flatbuffers protobuf packaging
    for wheel in wheels/*.whl; do python -m zipfile -e $wheel DIR/site; done

What the emulation does not bring is made up here: /proc/cpuinfo, without which ONNX Runtime crashes as it is imported,
and a `sys.executable` that other processes can be started with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgerecover.errors import EXIT_INCONCLUSIVE

_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
CPUS = {
    "cortex-a72": ("0xd08", _FEATURES),
    "cortex-a76": ("0xd0b", f"{_FEATURES} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
}
"""Names of QEMU's processors, with the part number and the features that Linux tells of them (`/proc/cpuinfo`)."""
_TIMEOUT_S = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cpus", nargs="+", choices=list(CPUS), default=list(CPUS))
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "mnn"])
    options = parser.parse_args()
    print("| bundle | processor | file, runtime | decisions as the bundle says | largest difference of scores |")
    print("|---|---|---|---|---|")
    for cpu in options.cpus:
        for bundle in options.bundles:
            for runtime in options.runtimes:
                for row in rows(run(bundle.resolve(), options.root.resolve(), cpu, runtime)):
                    print(f"| {bundle.name} | {cpu} | {row} |", flush=True)


def run(bundle: Path, root: Path, cpu: str, runtime: str) -> Mapping[str, Any]:
    """What the bundle's runner found, as it writes it.

    Raises:
        SystemExit: the runner failed for another reason than a gate that waits for the device.
    """
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(cpuinfo(cpu), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="emulated-arm-") as temporary:
        folder = Path(temporary)
        python = folder / "python"
        program = root / "usr" / "bin" / "python3.11"
        python.write_text(
            f'#!/bin/sh\nexec qemu-aarch64 -cpu {cpu} -L "{root}" -E PYTHONHOME="{root}/usr" "{program}" "$@"\n',
            encoding="utf-8",
        )
        python.chmod(0o755)
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(python)!r}\n", encoding="utf-8")
        result = folder / "result.json"
        done = subprocess.run(
            [python, bundle / "runner.pyz", bundle, "--runtime", runtime, "--out", result, "--quiet"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}{os.pathsep}{root / 'site'}"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
        if not result.is_file():
            raise SystemExit(f"{bundle.name}, {cpu}, {runtime}: exit code {done.returncode}\n{done.stderr}")
        if done.returncode not in (0, EXIT_INCONCLUSIVE):
            print(f"exit code {done.returncode}: {done.stderr}")
        found: Mapping[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def cpuinfo(cpu: str, num_cores: int = 2) -> str:
    """`/proc/cpuinfo` of an Arm processor, as far as libraries read it."""
    part, features = CPUS[cpu]
    return "".join(
        f"processor\t: {core}\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x1\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
        for core in range(num_cores)
    )


def rows(result: Mapping[str, Any]) -> Iterator[str]:
    """One for each file that ran: its golden check, without its latency, or why there is none."""
    for tried in result["tried"]:
        name = f"{tried['path']}, {tried['runtime']}"
        if (golden := tried["golden"]) is None:
            yield f"{name} | {tried.get('error') or 'not run'} | "
            continue
        close = f" ({golden['too_close']} too close to call)" if golden["too_close"] else ""
        decided = f"{golden['same_decisions']} of {golden['num_images']}{close}"
        yield f"{name} | {decided} | {golden['largest_difference']:.1e} σ"


if __name__ == "__main__":
    main()
