#!/bin/sh
# Expected: torch.onnx.export's output_names may be any names, or are refused. Users meet it when the outputs of a network are
# called "mean" (and "var"), as those of a network with uncertainty are: a value inside the graph has the name of its
# operator, the exporter does not rename it, and writes a file without an error that no runtime opens.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import onnx
import onnxruntime
import torch
from torch import nn

warnings.simplefilter("ignore")
print("Python", sys.version.split()[0], "torch", torch.__version__, "onnx", onnx.__version__)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


def said(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return str(error).strip()[:110]
    return "ok"


found = {}
for name in ("scores", "mean", "linear"):
    program = torch.onnx.export(
        Pooled().eval(), (torch.zeros(1, 4, 3, 3),), dynamo=True, verbose=False, output_names=[name]
    )
    model = program.model_proto
    found[name] = said(onnx.checker.check_model, model), said(onnxruntime.InferenceSession, model.SerializeToString())
    print(f"output_names=[{name!r}]: nodes give {[list(node.output) for node in model.graph.node]}")
    print("  onnx.checker:", found[name][0])
    print("  onnxruntime: ", found[name][1])
as_it_was = found["scores"] == found["linear"] == ("ok", "ok")
as_it_was &= "single static assignment" in found["mean"][0] and "Duplicate definition" in found["mean"][1]
sys.exit(0 if as_it_was else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
