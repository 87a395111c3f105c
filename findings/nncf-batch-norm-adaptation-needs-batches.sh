#!/bin/sh
# One would expect that adapting batch norm on a calibration set gives it the statistics of that set, and that the
# result does not depend on how the set is cut into batches. nncf.batch_norm_adaptation runs the layers in training mode
# from the statistics that they hold: each batch moves them by momentum, a tenth. After one batch nine tenths are still
# the old ones, and a pruned network whose statistics are all wrong stays about as wrong as it was.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nncf==3.4.0 torch==2.14.1
"$folder/venv/bin/python" - <<'P'
import sys

import nncf
import torch
from torch import nn

print("nncf", nncf.__version__, "torch", torch.__version__)
torch.manual_seed(0)
images = torch.randn(64, 1, 8, 8) + 10
found = {}
for batch_size in (64, 16, 1):
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()  # stored: mean 0
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.fill_(0)
    nncf.batch_norm_adaptation(network, calibration_dataset=nncf.Dataset(list(images.split(batch_size))))
    found[batch_size] = float(network[1].running_mean)
    print(f"64 images of mean 10 in batches of {batch_size}: adapted mean {found[batch_size]:.2f}")
sys.exit(not (0.9 < found[64] < 1.1 and 3.3 < found[16] < 3.6 and found[1] > 9.9))
P
