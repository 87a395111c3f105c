"""Runs a function of a test module in several processes of one group, as torchrun would: gloo, on this machine."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_START = """
import pickle, sys
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("under_test", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["under_test"] = module
spec.loader.exec_module(module)
from edgerecover.distributed import joined
arguments = pickle.loads(Path(sys.argv[3]).read_bytes())
with joined("cpu", Path(sys.argv[4])) as ranks:
    result = getattr(module, sys.argv[2])(ranks, *arguments)
Path(sys.argv[4], f"result-{ranks.rank}.pickle").write_bytes(pickle.dumps(result))
"""


def free_port():
    """Of this machine, at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(size):
    """The command that starts processes on this machine."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"),
        *("--nproc-per-node", str(size)),
    ]


def environment():
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def in_processes(size, module, function, folder, *arguments):
    """What `function(ranks, *arguments)` of a module gives each of `size` processes."""
    (folder / "arguments.pickle").write_bytes(pickle.dumps(arguments))
    command = [*torchrun(size), sys.executable, "-c", _START, module, function, folder / "arguments.pickle", folder]
    done = subprocess.run(
        list(map(str, command)), env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [pickle.loads((folder / f"result-{rank}.pickle").read_bytes()) for rank in range(size)]
