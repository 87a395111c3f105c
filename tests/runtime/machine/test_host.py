import os
import platform
from dataclasses import replace

import pytest

from edgerecover.artifacts import Gpu, Host, TargetMachine
from edgerecover.artifacts.machine import ISA
from edgerecover.runtime.machine import host as host_module
from edgerecover.runtime.machine.host import differences, is_target, this_host

ORIN_NANO = Host(
    "aarch64", "Cortex-A78AE", 6, "Linux 5.15.148-tegra", "NVIDIA Jetson Orin Nano Developer Kit", l4t="36.4.3"
)
LAPTOP = Host("x86_64", "AMD Ryzen 7", 16, "Linux 6.8", isa=("avx2", "fma"), gpus=(Gpu("NVIDIA RTX 4090", "8.9"),))

# The fields of one processor, in the order and spelling of the Linux kernel's arch/*/kernel/cpuinfo.c.
PI_4 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3
"""
PI_5 = PI_4.replace(
    "crc32 cpuid", "aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
).replace("0xd08", "0xd0b")
ORIN = PI_5.replace("asimddp", "asimddp uscat ilrcpc flagm paca pacg").replace("0xd0b", "0xd42")
VNNI = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC
flags		: fpu vme avx f16c fma avx2 avx512f avx512dq avx512_bf16 avx512vbmi avx512_vnni
"""
TEGRA_RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025\n"


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (TargetMachine("any"), LAPTOP, True),
        (TargetMachine("any"), ORIN_NANO, True),
        (TargetMachine("x86_64"), LAPTOP, True),
        (TargetMachine("AMD64"), LAPTOP, True),
        (TargetMachine("aarch64"), LAPTOP, False),
        (TargetMachine("arm64"), ORIN_NANO, True),
        (TargetMachine("aarch64", "Orin"), ORIN_NANO, True),
        (TargetMachine("aarch64", "orin nano"), ORIN_NANO, True),
        (TargetMachine("aarch64", "AGX Orin"), ORIN_NANO, False),
        (TargetMachine("any", "Raspberry Pi 5"), LAPTOP, False),
        (TargetMachine(isa=("avx2",)), LAPTOP, True),
        (TargetMachine(isa=("avx2", "avx512_vnni")), LAPTOP, False),
        (TargetMachine(isa=("avx2",), without_isa=("avx512f",)), LAPTOP, True),
        (TargetMachine(without_isa=("avx512f", "fma")), LAPTOP, False),
        (TargetMachine(compute_capability="8.9"), LAPTOP, True),
        (TargetMachine(compute_capability="8.6"), LAPTOP, False),
        (TargetMachine(gpu="nvidia"), LAPTOP, True),
        (TargetMachine(gpu="Intel"), LAPTOP, False),
        (TargetMachine(system="Linux"), LAPTOP, True),
        (TargetMachine(system="Android"), LAPTOP, False),
        (TargetMachine(board="Orin Nano", l4t="36"), ORIN_NANO, True),
        (TargetMachine(board="Orin Nano", l4t="39"), ORIN_NANO, False),
        (TargetMachine(board="Orin Nano", l4t="3"), ORIN_NANO, False),
        (TargetMachine(board="Orin Nano", l4t="39"), replace(ORIN_NANO, l4t=""), True),
    ],
)
def test_a_host_is_the_target_when_it_has_all_that_is_asked(target, host, expected):
    assert is_target(target, host) is expected


def test_the_differences_are_named():
    gpu = {"compute_capability": "8.7", "gpu": "Intel"}
    target = TargetMachine("aarch64", "Orin Nano", ("asimddp",), ("avx2",), **gpu, system="Android", l4t="39")
    told = "; ".join(differences(target, replace(LAPTOP, l4t="36.4.3")))
    for words in ("x86_64, not aarch64", "not Orin Nano", "no asimddp", "has avx2", "8.7", "no Intel GPU"):
        assert words in told
    assert "not Android" in told
    assert "36.4.3, not 39.x" in told


def test_this_host_is_described():
    host = this_host()
    assert is_target(TargetMachine(platform.machine(), isa=host.isa), host)
    assert host.cpu
    assert 1 <= host.num_cores <= os.cpu_count()
    assert platform.system() in host.system


@pytest.mark.parametrize(
    ("cpu_info", "name", "has", "has_not"),
    [
        (PI_4, "Cortex-A72", {"asimd"}, {"asimddp", "asimdhp", "i8mm"}),
        (PI_5, "Cortex-A76", {"asimd", "asimdhp", "asimddp"}, {"i8mm", "bf16", "sve"}),
        (ORIN, "Cortex-A78AE", {"asimddp"}, {"i8mm"}),
        (VNNI, "AMD EPYC", {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}, {"avx_vnni", "amx_int8"}),
        ("", "", set(), set(ISA)),
    ],
)
def test_processors_are_told_from_their_cpuinfo(tmp_path, cpu_info, name, has, has_not):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(cpu_info)
    info = host_module._cpu_info(tmp_path)
    assert host_module._cpu_name(info) == name
    isa = set(host_module._isa(info))
    assert has <= isa
    assert not has_not & isa


def test_a_jetson_is_told_from_its_files(tmp_path):
    for path, content in {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": TEGRA_RELEASE,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(content)
    assert host_module._board(tmp_path) == "NVIDIA Jetson AGX Orin Developer Kit"
    assert host_module._l4t(tmp_path) == "36.4.3"
    assert (host_module._board(tmp_path / "none"), host_module._l4t(tmp_path / "none")) == ("", "")


def test_an_intel_gpu_is_told_from_the_files_of_its_driver(tmp_path):
    for card, vendor in {"card0": "0x8086", "card1": "0x1a03", "card0-HDMI-A-1": "0x8086"}.items():
        device = tmp_path / "sys" / "class" / "drm" / card / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "device").write_text("0x46a6\n")
    assert host_module._other_gpus(tmp_path) == [Gpu("Intel GPU 0x46a6")]


def test_nvidia_gpus_are_told_by_nvidia_smi():
    told = "NVIDIA GeForce RTX 4090, 8.9, 550.54.14\nOrin (nvgpu), [N/A], 540.4.0\n"
    assert host_module._nvidia_gpus(told) == [
        Gpu("NVIDIA GeForce RTX 4090", "8.9", "550.54.14"),
        Gpu("Orin (nvgpu)", "", "540.4.0"),
    ]
    assert host_module._nvidia_gpus("No devices were found\n") == []


def test_a_command_that_is_missing_or_fails_says_nothing(monkeypatch):
    assert host_module._output("no-such-command-anywhere") == ""
    assert host_module._output("false") == ""
