#!/bin/sh
# Expected: the state_dict of a network that torch.ao.pruning has masked holds its masks, which are buffers of it.
# Users meet it when they save a pruned network: FakeSparsity overrides state_dict() to hand out nothing, so the network's
# own state_dict does not even load into itself, and with strict=False the loaded network is dense without a word.
# The masks are in sparsifier.state_dict(), and in the state_dict of torch.export's program.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys

import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier

print("Python", sys.version.split()[0], "torch", torch.__version__)


def prepared():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    sparsifier = WeightNormSparsifier(sparsity_level=0.8)
    sparsifier.prepare(network, None)
    return network, sparsifier


def zeros(network):
    weights = [network[0].weight, network[2].weight]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


network, sparsifier = prepared()
sparsifier.step()
buffers = [name for name, _ in network.named_buffers()]
again, _ = prepared()
try:
    network.load_state_dict(network.state_dict())
    refused = ""
except RuntimeError as error:
    refused = str(error).splitlines()[-1].strip()
print("load_state_dict of its own:", refused or "loaded")
again.load_state_dict(network.state_dict(), strict=False)
program = torch.export.export(network, (torch.rand(2, 16),))
print("buffers:               ", buffers)
print("state_dict:            ", list(network.state_dict()))
print("exported program's:    ", [key for key in program.state_dict if "mask" in key])
print("sparsifier.state_dict: ", list(sparsifier.state_dict()["state"]))
print(f"zeros: {zeros(network):.0%} before, {zeros(again):.0%} after state_dict and load_state_dict(strict=False)")
as_it_was = (
    refused.startswith("Missing key(s)")
    and all(name.endswith("mask") for name in buffers)
    and not any("mask" in key for key in network.state_dict())
    and any("mask" in key for key in program.state_dict)
    and zeros(network) > 0.7
    and zeros(again) == 0
)
sys.exit(0 if as_it_was else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
