"""A Slurm cluster of one node, this machine, with a GPU that is /dev/null: real daemons, for the time of a test."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import free_port

_DAEMONS = "/usr/sbin/slurmctld", "/usr/sbin/slurmd"
_CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch` hands jobs to it."""
    if not all(map(os.path.exists, _DAEMONS)) or shutil.which("sbatch") is None:
        pytest.skip("no Slurm here: apt-get install slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start jobs for others: only root can run them")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    words = {
        "host": socket.gethostname().partition(".")[0],
        "controller_port": free_port(),
        "node_port": free_port(),
        "folder": folder,
        "cores": os.cpu_count(),
    }
    configuration.write_text(_CONFIGURATION.format(**words))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    daemons = [
        subprocess.Popen([daemon, "-D"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for daemon in _DAEMONS
    ]
    try:
        until = time.monotonic() + 60
        while "idle" not in _states(environment):
            if time.monotonic() > until or any(daemon.poll() is not None for daemon in daemons):
                said = [path.read_text().splitlines()[-3:] for path in sorted(folder.glob("*.log"))]
                pytest.skip(f"Slurm's daemons do not start here: {said}")
            time.sleep(0.2)
        yield environment
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=60)


def _states(environment: dict[str, str]) -> str:
    line = ["sinfo", "--noheader", "--format=%t"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False).stdout
