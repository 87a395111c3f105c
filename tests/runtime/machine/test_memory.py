import platform
import sys

import pytest

from edgerecover.runtime.machine.memory import free_bytes, keep_freed_memory

MB = 1_000_000


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_limit_it_is_what_the_machine_has(tmp_path):
    assert free_bytes(tmp_path) > MB


def test_a_container_has_what_its_group_leaves_it(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/jobs/7\n")
    group = tmp_path / "sys/fs/cgroup/jobs/7"
    write(group / "memory.max", f"{5 * MB}\n")
    write(group / "memory.current", f"{4 * MB}\n")
    assert free_bytes(tmp_path) == MB
    write(group / "memory.stat", f"anon {2 * MB}\ninactive_file {2 * MB}\n")
    assert free_bytes(tmp_path) == 3 * MB  # pages of files give way
    write(group / "memory.max", "max\n")
    assert free_bytes(tmp_path) > 5 * MB
    write(group.parent / "memory.max", f"{6 * MB}\n")
    write(group.parent / "memory.current", f"{7 * MB}\n")
    assert free_bytes(tmp_path) == 0


def test_older_control_groups(tmp_path):
    group = tmp_path / "sys/fs/cgroup/memory"
    write(group / "memory.limit_in_bytes", "9223372036854771712\n")
    write(group / "memory.usage_in_bytes", f"{MB}\n")
    assert free_bytes(tmp_path) > MB
    write(group / "memory.limit_in_bytes", f"{3 * MB}\n")
    assert free_bytes(tmp_path) == 2 * MB


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_glibc_takes_the_thresholds():
    assert keep_freed_memory()
