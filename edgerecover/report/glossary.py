"""The words of a report that are not everyday English, each explained once. Stdlib only.

docs/reference/report.md#words shows the same list; a test compares them.
"""

from __future__ import annotations

WORDS = {
    "teacher": "The dense network, before pruning.",
    "student": "The pruned network, which learns from the teacher. `pruned` is the student as it was given, "
    "`recovered` the one that is exported.",
    "dream": "A synthetic image, made from the teacher until the teacher sees an assigned class in it. Dreams replace "
    "the real images that are not available.",
    "mirrored": "Whether dreams were shown flipped left to right as well. A run finds out by asking the teacher "
    "(`mirrored?`): a flipped cat is a cat, a flipped digit is not a digit.",
    "train, calibration, held-out": "Three separate sets of dreams. Recovery learns from train images, calibration "
    "images choose its best step, and held-out images judge the exported file. Nothing is learnt from or chosen by "
    "held-out images.",
    "agreement": "The share of images on which a network or file decides for the same class as the teacher. Not "
    "accuracy: nobody knows the true class of a dream. Other tasks have a measure of their own, such as mean IoU; the "
    "report says how much an image counts.",
    "accuracy": "The share of real labelled images that are classified correctly. Only with `--eval-data`. Other tasks "
    "have a measure of their own.",
    "rung": "A step of the recovery: statistics repair, layer-wise least squares, block-wise reconstruction, "
    "distillation. Each builds on one before, like the rungs of a ladder; all are judged, and the best is kept.",
    "statistics repair": "Re-estimates the mean and variance that batch norm has stored. Pruning makes the old ones "
    "wrong.",
    "layer-wise least squares": "Solves for the remaining weights of each layer, so that its output is as close as "
    "possible to the teacher's.",
    "block-wise reconstruction": "Trains one block after another until its output is as close as possible to that of "
    "the teacher's block.",
    "distillation": "Trains the student to output what the teacher outputs.",
    "mask": "Which weights were pruned. They stay zero through every rung.",
    "parity": "Whether the exported file computes what PyTorch computes.",
    "ranges": "The smallest and largest value of every tensor on the calibration images; fp16 and int8 are based on "
    "them.",
    "variant": "The exported file in one precision: fp32, fp16 or int8.",
    "race": "All variants, run in turns on this machine with the dense network beside them, so that whatever slows one "
    "slows all. The fastest that passes is shipped.",
    "shipped": "The variant that is `model.onnx` of the bundle.",
    "× dense": "How many times faster than the dense network in float32.",
    "gate": "A limit of the profile or the target, and whether it is met.",
    "host, target": "The machine that made the report, and the device that the bundle is for.",
    "p50, p99": "Half, or 99 of 100, of the queries were at least as fast.",
}
