#!/bin/sh
# One would expect that a pruning mask can take every weight of an output channel: it then puts out its bias.
# Under weight_norm (torch.nn.utils, old and new) the weight is g * v / |v|. A row of v that is all zero is 0 / 0,
# and the whole network answers NaN. torch.nn.utils.prune takes such rows without a word, and ln_structured always does.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1
"$folder/venv/bin/python" - <<'P'
import sys
import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

warnings.simplefilter("ignore")  # numpy is not there, and the old weight_norm is deprecated
print("torch", torch.__version__)
new = parametrizations.weight_norm(nn.Linear(4, 3))
prune.ln_structured(new.parametrizations.weight, "original1", amount=1, n=2, dim=0)
old = weight_norm(nn.Linear(4, 3))
prune.ln_structured(old, "weight_v", amount=1, n=2, dim=0)
images = torch.ones(1, 4)
outputs = {"parametrizations.weight_norm": new(images), "weight_norm": old(images)}
for name, output in outputs.items():
    print(f"{name}: one row of three pruned, output {output.tolist()}")
sys.exit(any(int(output.isnan().sum()) != 1 for output in outputs.values()))
P
