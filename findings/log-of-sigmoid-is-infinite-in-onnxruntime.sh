#!/bin/sh
# Expected: log(sigmoid(-20)) is about -20 in an exported file too, since float32 has 2e-9. Users meet it with detectors and
# multi-label networks whose scores are log-probabilities: torch writes F.logsigmoid as Log of Sigmoid, and ONNX Runtime's
# Sigmoid on CPUs is exactly 0 from -18 on (and 18 % off at -17.5), so the file gives -inf where PyTorch gives -20.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator

warnings.simplefilter("ignore")
print("Python", sys.version.split()[0], "torch", torch.__version__, "onnxruntime", onnxruntime.__version__)


class Step(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def export(function):
    return torch.onnx.export(Step(function), (torch.zeros(1, 4),), dynamo=True, verbose=False).model_proto


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0][0]


x = np.array([[-10, -17.5, -18, -20]], np.float32)
log_sigmoid = export(F.logsigmoid)
operators = [node.op_type for node in log_sigmoid.graph.node]
reference = ReferenceEvaluator(log_sigmoid).run(None, {log_sigmoid.graph.input[0].name: x})[0][0]
probabilities, logs, softplus = run(export(torch.sigmoid)), run(log_sigmoid), run(export(lambda x: -F.softplus(-x)))
print("F.logsigmoid is exported as", operators)
print("x                         ", x[0])
print("PyTorch, F.logsigmoid     ", F.logsigmoid(torch.tensor(x))[0].numpy())
print("the file, onnx's reference", reference)
print("the file, ONNX Runtime    ", logs)
print("ONNX Runtime, sigmoid     ", probabilities)
print("ONNX Runtime, -softplus(-x)", softplus)
as_it_was = operators == ["Sigmoid", "Log"] and (probabilities[2:] == 0).all() and np.isinf(logs[2:]).all()
as_it_was &= np.isfinite(reference).all() and np.allclose(softplus, x[0], atol=1e-3)
sys.exit(0 if as_it_was else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
