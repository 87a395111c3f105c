"""What `validate` does: judging, and packing, an ONNX file that was recovered elsewhere.

The same judgement, gates and bundle as at the end of `run`. What needs a network that is not there is left out; the
report says with what evidence it works.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgerecover.artifacts import Report, StageTime
from edgerecover.bundle.write import check_writable
from edgerecover.progress import SILENT, Progress
from edgerecover.report.picture import contact_sheet
from edgerecover.run_folder import SCRATCH_PREFIX, held
from edgerecover.stages.bundle import pack_file
from edgerecover.stages.load_file import load_file
from edgerecover.stages.npu import NpuFiles, compile_given
from edgerecover.stages.report import report_of_file
from edgerecover.stages.request import FileRequest
from edgerecover.stages.stage import stage
from edgerecover.stages.synthesize import find_evidence
from edgerecover.stages.validate import judge_given


def validate_file(request: FileRequest, progress: Progress = SILENT) -> Report:
    """Judge an ONNX file beside its teacher; the bundle, if one was asked for, is at `request.out` afterwards.

    A failed gate is in the report, not an exception.

    Raises:
        EdgeRecoverError: with the exit code and hint of what went wrong; no half-written bundle is left.
    """
    with (
        held(request.work, request.out, progress),
        tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=request.work) as scratch,
    ):
        return _validate_file(request, Path(scratch), progress)


def _validate_file(request: FileRequest, folder: Path, progress: Progress) -> Report:
    if request.out is not None:
        check_writable(request.out)
    times: list[StageTime] = []
    with stage("load", times, progress):
        loaded = load_file(request, progress)
    with stage("synthesize", times, progress) as clock:
        evidence = find_evidence(request, loaded, progress)
        clock.reused = evidence.facts.reused
    with stage("validate", times, progress):
        judged = judge_given(request, loaded, evidence, evidence.golden_NCHW(), progress)
    npu = NpuFiles()
    if request.target.npu_generations is not None:
        with stage("engine", times, progress):
            npu = compile_given(request, loaded, evidence, folder, progress)
    report = report_of_file(request, loaded, evidence, judged, npu, times)
    if request.out is not None:
        sheet_png, sheet = contact_sheet(evidence.golden)
        report = replace(report, sheet=sheet)
        with stage("bundle", times, progress):
            pack_file(report, request, request.out, loaded, evidence, npu, sheet_png)
    return report
