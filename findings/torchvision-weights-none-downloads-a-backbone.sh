#!/bin/sh
# Expected: with weights=None, torchvision's segmentation networks and detectors are built without pretrained weights.
# Users meet it when they build one to load their own checkpoint into it, on a machine without a network or in CI: the
# default of weights_backbone is ImageNet weights, which are downloaded nevertheless. weights_backbone=None is needed too.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys

import torchvision
from torchvision.models import WeightsEnum, get_model

print("Python", sys.version.split()[0], "torchvision", torchvision.__version__)
asked = []


def refuse(self, *_, **__):
    """In place of the download."""
    asked.append(str(self))
    raise OSError("no network here")


WeightsEnum.get_state_dict = refuse
NAMES = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "ssdlite320_mobilenet_v3_large"
as_it_was = True
for name in NAMES:
    asked.clear()
    try:
        get_model(name, weights=None)
        downloads = "nothing"
    except OSError:
        downloads = asked[0]
    without = get_model(name, weights=None, weights_backbone=None)
    print(f"{name}(weights=None) downloads {downloads}; with weights_backbone=None, nothing: {len(asked) == 1}")
    as_it_was &= "Weights.IMAGENET1K" in downloads and len(asked) == 1 and without is not None
asked.clear()
get_model("mobilenet_v3_large", weights=None)
print(f"mobilenet_v3_large(weights=None), a classifier, downloads {asked[0] if asked else 'nothing'}")
sys.exit(0 if as_it_was and not asked else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
