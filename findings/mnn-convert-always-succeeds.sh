#!/bin/sh
# One would expect that MNN's converter returns False, raises or ends with another exit code where it converts nothing, so
# that a build script stops. From Python it returns True for a file that is not there, and writes no file. Whoever
# converts in CI has to look whether the file is there, or ships the one from last time.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps MNN==3.6.1 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import importlib.metadata
import sys
from pathlib import Path

import _tools  # the compiled converter, as MNN.tools calls it

print("MNN", importlib.metadata.version("MNN"))
answer = _tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--modelFile", "nothere.onnx", "--MNNModel", "out.mnn"])
print(f"a file that is not there: it returns {answer!r}; out.mnn is there: {Path('out.mnn').exists()}")
sys.exit(not (answer is True and not Path("out.mnn").exists()))
P
