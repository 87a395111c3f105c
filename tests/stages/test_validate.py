"""What is measured of a file, on scores that are given."""

from types import SimpleNamespace

import numpy as np

from edgerecover.artifacts import OutputPart, OutputSpec, TaskKind
from edgerecover.stages.validate import Beside, judge_file
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.scoring import Reference

NUM_IMAGES = 40
OUTPUT = OutputSpec.several(
    (OutputPart("digit", OutputSpec.one_label(3)), OutputPart("age", OutputSpec(TaskKind.REGRESSION, (1,))))
)


class Images:
    """As many numbers as images, each an image of one pixel."""

    def __init__(self, num_images):
        self.images_NCHW = np.arange(num_images, dtype=np.float32).reshape(-1, 1, 1, 1)

    def __len__(self):
        return len(self.images_NCHW)

    def batches(self, batch_size):
        for start in range(0, len(self), batch_size):
            yield self.images_NCHW[start : start + batch_size]


def test_each_of_several_outputs_keeps_what_it_decides_image_by_image():
    """By these, two bundles are compared on the same images, output by output."""
    rng = np.random.default_rng(0)
    teacher_ND = rng.normal(size=(NUM_IMAGES, OUTPUT.num_values)).astype(np.float32)
    file_ND = teacher_ND.copy()
    file_ND[:10, :3] = -file_ND[:10, :3]

    def scorer(outputs_ND):
        return lambda images_NCHW: outputs_ND[images_NCHW[:, 0, 0, 0].astype(int)]

    judged = judge_file(
        SimpleNamespace(run=scorer(file_ND)),
        Beside(Reference(scorer(teacher_ND), measure_of(OUTPUT))),
        Images(NUM_IMAGES),
        eval_set=None,
        latency=None,
        two_four=None,
        is_predictable=False,
    )
    whole, each = judged.fidelity, judged.fidelity.by_output
    same_N = teacher_ND[:, :3].argmax(1) == file_ND[:, :3].argmax(1)
    assert not same_N.all()
    assert each["digit"].decisions.right == "".join("01"[int(same)] for same in same_N)
    assert each["age"].decisions.shares == (1.0,) * NUM_IMAGES
    assert {one.decisions.images_sha256 for one in each.values()} == {whole.decisions.images_sha256}
