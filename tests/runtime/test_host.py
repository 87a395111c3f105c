import os
import platform

import pytest

from edgerecover.artifacts import Host
from edgerecover.runtime.host import is_target, this_host

ORIN_NANO = Host("aarch64", "ARMv8", 6, "Linux 5.15.148-tegra", "NVIDIA Jetson Orin Nano Developer Kit")
LAPTOP = Host("x86_64", "AMD Ryzen 7", 16, "Linux 6.8")


@pytest.mark.parametrize(
    ("machine", "board", "host", "expected"),
    [
        ("any", None, LAPTOP, True),
        ("any", None, ORIN_NANO, True),
        ("x86_64", None, LAPTOP, True),
        ("AMD64", None, LAPTOP, True),
        ("aarch64", None, LAPTOP, False),
        ("arm64", None, ORIN_NANO, True),
        ("aarch64", "Orin", ORIN_NANO, True),
        ("aarch64", "orin nano", ORIN_NANO, True),
        ("aarch64", "AGX Orin", ORIN_NANO, False),
        ("any", "Raspberry Pi 5", LAPTOP, False),
    ],
)
def test_a_host_is_the_target_by_machine_and_board(machine, board, host, expected):
    assert is_target(machine, board, host) is expected


def test_this_host_is_described():
    host = this_host()
    assert is_target(platform.machine(), None, host)
    assert host.cpu
    assert 1 <= host.num_cores <= os.cpu_count()
    assert platform.system() in host.system
