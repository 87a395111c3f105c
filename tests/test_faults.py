"""Faults that are really caused: memory and room that are not there, folders that cannot be written, Ctrl-C twice."""

import copy
import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from edgerecover.artifacts import OutputSpec
from edgerecover.compute import is_out_of_memory
from edgerecover.errors import EXIT_BAD_INPUT, EXIT_MISSING, BadInputError, MissingError
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.recovery.checkpoints import Checkpoints
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.run_folder import held
from edgerecover.stages.stage import stage
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.source import Source
from tests.pairs import pair_of

# --- memory ---------------------------------------------------------------------------------------------------

LITTLE_MEMORY = """
import copy, json, resource, sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.config import load_profile, load_target
from edgerecover.config.profile import in_batches_of
from edgerecover.compute import Compute
from edgerecover.models.pair.channels import SAME_CHANNELS
from edgerecover.stages.load import Loaded
from edgerecover.stages.probe import Probed
from edgerecover.stages.recover import recover_student
from edgerecover.stages.request import Request
from edgerecover.stages.synthesize import Images
from edgerecover.progress import SILENT
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.distributed import ALONE
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.source import Source
from edgerecover.recovery.execution import Execution

folder, stage, spare_mb = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
input = InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
compute = Compute(torch.device("cpu"), None, torch.channels_last)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval().requires_grad_(False)


teacher = network()
profile = load_profile("smoke")
synthesis = profile.synthesis.model_copy(
    update={"num_train": 96, "num_calibration": 16, "num_held_back": 16, "batch_size": 64, "num_steps": 2,
            "flip": False, "start": "noise"}
)
recovery = profile.recovery.model_copy(
    update={"batch_size": 64, "num_steps": 3, "flip": False, "refresh": None, "layerwise": False}
)
profile = profile.model_copy(update={"synthesis": synthesis, "recovery": recovery})
# What is imported at its first use is there before memory is taken away.
few = {"num_train": 2, "num_calibration": 2, "num_held_back": 2}
source = Source(teacher, input, OutputSpec.one_label(4), compute)
synthesize(source, synthesis.model_copy(update=few), seed=0, folder=folder / "few")


def allow(spare_mb):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare_mb * 10**6 if spare_mb else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


if stage == "synthesize":
    allow(spare_mb)
sets, facts = synthesize(source, synthesis, seed=0, folder=folder / "dreams")
answer = {"warnings": facts.warnings, "sha256": sets.sha256,
          "batches": [shard.batch_size for shard in sets.train.shards]}
if stage == "recover":
    student = network()
    student.load_state_dict(teacher.state_dict())
    masks = global_magnitude_masks(student, 0.5)
    apply_masks(student, masks)

    def recover_in_batches_of(batch_size, name):
        models = SimpleNamespace(student=copy.deepcopy(student), teacher=teacher, masks=masks, channels=SAME_CHANNELS,
                                 output=OutputSpec.one_label(4))
        request = Request(folder / "model.pt", load_target("onnx-generic"), profile, folder / "out", folder / name)
        asked = profile.model_copy(update={"recovery": in_batches_of(recovery, batch_size)})
        return recover_student(request, Loaded(models, Probed(compute)), Images(sets, None, asked, "key"), ALONE)

    # What a first step takes whatever its batch (kernels, caches, the allocator's arenas) differs between processors.
    recover_in_batches_of(8, "first")
    allow(spare_mb)
    profile, recovered, reused = recover_in_batches_of(256, "second")
    answer = {"warnings": recovered.warnings, "batch_size": profile.recovery.batch_size, "reused": reused,
              "kept": sorted(path.parent.name for path in (folder / "second").glob("recovered-*/recovery.json"))}
print(json.dumps(answer))
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit on memory that malloc obeys")


def with_little_memory(folder, step, spare_mb):
    command = [sys.executable, "-c", LITTLE_MEMORY, str(folder), step, str(spare_mb)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@linux
@pytest.mark.slow
def test_dreams_are_made_in_smaller_batches_where_memory_does_not_suffice(tmp_path):
    enough = with_little_memory(tmp_path / "enough", "synthesize", 0)
    little = with_little_memory(tmp_path / "little", "synthesize", 60)
    assert enough["batches"] == [0, 0]
    assert enough["warnings"] == []
    assert 0 < little["batches"][0] < 64
    (warning,) = little["warnings"]
    assert "out of memory at batch size 64" in warning
    assert f"in batches of {min(filter(None, little['batches']))} or more" in warning
    assert little["sha256"] != enough["sha256"], "what was recovered from them must have another key"
    again = with_little_memory(tmp_path / "little", "synthesize", 0)
    assert again == little, "finished shards are kept, and what they were made with is still said"


@linux
@pytest.mark.slow
def test_recovery_goes_on_in_smaller_batches_and_is_kept_as_such(tmp_path):
    enough = with_little_memory(tmp_path / "enough", "recover", 0)
    assert (enough["batch_size"], enough["warnings"]) == (256, [])
    little = with_little_memory(tmp_path / "little", "recover", 120)
    assert little["batch_size"] < 256
    words = f"out of memory at batch size 256: recovered at batch size {little['batch_size']}"
    assert words in little["warnings"][0]
    assert len(little["kept"]) == 1
    assert little["kept"] != enough["kept"]


def test_what_is_told_from_too_little_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))


def test_a_stage_without_memory_is_something_missing():
    with pytest.raises(MissingError, match="stage race: out of memory") as raised, stage("race", []):
        torch.empty(2**60, dtype=torch.uint8)
    assert raised.value.exit_code == EXIT_MISSING
    assert "resumes from its finished steps" in raised.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_that_is_too_small_halves_the_batch(teacher, input_spec, synthesis, tmp_path):
    from edgerecover.compute import choose_compute

    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 40e6) / total))
    try:
        settings = synthesis.model_copy(update={"num_train": 8192, "batch_size": 8192, "num_steps": 1})
        sets, facts = synthesize(
            Source(teacher, input_spec, OutputSpec.one_label(4), choose_compute("cuda")), settings, seed=0,
            folder=tmp_path,
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 0 < sets.train.shards[0].batch_size < 8192
    assert "out of memory" in facts.warnings[0]


# --- disks ----------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder, size_kb):
    """A file system of that size at `folder`."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(teacher, input_spec, synthesis, recovery, cpu, tmp_path):
    student = copy.deepcopy(teacher)
    masks = global_magnitude_masks(student, 0.9)
    apply_masks(student, masks)

    def run(work):
        with stage("synthesize", []):
            made, _ = synthesize(
                Source(teacher, input_spec, OutputSpec.one_label(4), cpu), synthesis, seed=0, folder=work / "dreams"
            )
        with stage("recover", []):
            kept = Checkpoints(work / "steps", every_s=0.0)
            return recover(pair_of(student, teacher, masks), made, recovery, Execution(cpu, checkpoints=kept), seed=0)

    undisturbed = run(tmp_path / "elsewhere").student.state_dict()
    disk = tmp_path / "disk"
    with mounted(disk, 32) as remount:
        for room_kb, stage_name in ((None, "synthesize"), (96, "recover")):
            if room_kb:
                remount(f"size={room_kb}k")
            before = set(disk.rglob("*"))
            with pytest.raises(BadInputError, match=f"stage {stage_name}: No space left on device") as raised:
                run(disk)
            assert raised.value.exit_code == EXIT_BAD_INPUT
            assert "the same command resumes" in raised.value.hint
            assert before <= set(disk.rglob("*"))
            assert not list(disk.rglob("*.tmp"))
        finished = {path: path.stat().st_mtime_ns for path in (disk / "dreams").iterdir()}
        remount("size=4096k")
        found = run(disk).student.state_dict()
        assert all(torch.equal(value, undisturbed[name]) for name, value in found.items())
        assert {path: path.stat().st_mtime_ns for path in (disk / "dreams").iterdir()} == finished


def test_a_read_only_run_folder_is_refused(tmp_path):
    with mounted(tmp_path / "disk", 64) as remount:
        remount("ro")
        refused = pytest.raises(BadInputError, match="cannot be written: Read-only file system")
        with refused as raised, held(tmp_path / "disk" / "work"):
            pass
        assert raised.value.exit_code == EXIT_BAD_INPUT
        assert "--work" in raised.value.hint


# --- Ctrl-C ---------------------------------------------------------------------------------------------------

SLOW_TO_LEAVE = """
import sys, time
from edgerecover import cli


@cli.app.command("linger")
def linger() -> None:
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(float(seconds))


seconds = sys.argv[1]
sys.argv = ["edgerecover", "linger"]
cli.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("num_times", "code"), [(1, 130), (2, -signal.SIGINT)])
def test_ctrl_c_once_ends_in_order_and_twice_at_once(num_times, code):
    """A shell shows a process that SIGINT has ended as 130 too."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_LEAVE, "0.1" if num_times == 1 else "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would the child of a test run started as one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning up\n"
        if num_times == 2:
            process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    assert "Traceback" not in stderr
