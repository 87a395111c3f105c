import ctypes
import logging
import os
import subprocess
import sys
import warnings

import pytest

from edgerecover.runtime.machine.silence import silence


def talk():
    sys.stdout.write("python out\n")
    sys.stderr.write("python err\n")
    os.write(1, b"descriptor 1\n")
    os.write(2, b"descriptor 2\n")
    if os.name == "posix":
        ctypes.CDLL(None).puts(b"C out, buffered")
    logging.getLogger("library").error("log")
    warnings.warn("careful", stacklevel=1)


def test_nothing_inside_is_seen_and_everything_outside_is(capfd):
    sys.stdout.write("before\n")
    with silence():
        talk()
    sys.stdout.write("after\n")
    assert capfd.readouterr() == ("before\nafter\n", "")
    assert logging.root.manager.disable == 0


def test_an_exception_passes_and_output_is_back(capfd):
    def fail():
        with silence():
            talk()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    os.write(1, b"back\n")
    assert capfd.readouterr() == ("back\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="closed descriptors")
def test_a_process_without_stdout_and_stderr_works():
    program = (
        "from edgerecover.runtime.machine.silence import silence\nwith silence(): print('x')\nimport os; os._exit(7)"
    )
    done = subprocess.run(["/bin/sh", "-c", f'exec "{sys.executable}" -c "{program}" >&- 2>&-'], check=False)
    assert done.returncode == 7
