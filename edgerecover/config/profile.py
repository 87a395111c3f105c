"""A profile: how images are synthesized and a student is recovered, and the gates of the result."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from edgerecover.config.schema import Count, Fraction, NonNegative, Positive, Settings


class Synthesis(Settings):
    """How images are synthesized from the teacher: DeepInversion (Yin et al. 2020, arXiv 1912.08795).

    loss = class_weight · class term + bn_weight · BN term + record_weight · record's distance
         + pixel_weight · pixel term + tv_weight · TV + l2_weight · mean square.
    """

    num_train: Count
    num_calibration: Count
    num_held_back: Count
    batch_size: Count
    source: Literal["dream", "shapes", "fractal", "noise"] = "dream"
    """`dream` uses the teacher. `shapes`, `fractal` and `noise` are made from formulas and use only `clamp` of the
    settings below."""
    images_at_once: Count | Literal["auto"] = "auto"
    """Images of a batch that go through the teacher at once; the statistics are those of the whole batch. `auto`: as
    many as fit into 600 MB or half of the free memory, whichever is less; on a GPU, into half of its free memory."""
    num_steps: Count
    """Adam steps per batch of images."""
    coarse_fraction: Fraction = 0.0
    """Share of the steps, at the start, in which the teacher sees the images at half their size, in a quarter of the
    time. Ignored for images under 64 pixels, for a teacher with a fixed input size, and with a record."""
    lr: Positive
    schedule: Literal["cosine", "constant"]
    betas: tuple[Fraction, Fraction]
    class_term: Literal["target", "entropy"]
    """`target`: cross entropy to balanced class targets; `entropy`: low entropy of the teacher's output, no target."""
    class_weight: NonNegative
    class_temperature: Positive = 1.0
    """T of T · cross entropy(logits / T): above 1, the term keeps widening the margin after the class is decided. Real
    images have wide margins."""
    bn_weight: NonNegative
    bn_distance: Literal["relative", "l2"]
    """`l2`: the sum over layers of ‖μ-μ̂‖₂ + ‖σ²-σ̂²‖₂ over channels, as published. `relative`: the mean over layers,
    each norm divided by that of the stored σ̂, or σ̂²: the weight means the same for networks of any scale and depth."""
    patch_weight: NonNegative = 0.0
    """Weight of the entropy of patch similarities (Li et al. 2022, arXiv 2203.02250); for transformers."""
    record_weight: NonNegative = 10.0
    """Weight of the distance to an activation record; used only with `--record`."""
    pixel_weight: NonNegative = 0.0
    """Weight of the pixels' mean and variance, compared with mean and std of the input as BN statistics are. Ignored
    if mean and std are not those of any images (0 and 1, 0.5 and 0.5)."""
    tv_weight: NonNegative
    tv_reduction: Literal["mean", "sum"] = "mean"
    """`mean` over batch and pixels keeps the weight's meaning at every batch size and resolution."""
    l2_weight: NonNegative = 0.0
    jitter_fraction: Fraction
    """Largest random roll per step as a fraction of the image's side."""
    flip: bool | Literal["auto"]
    """Mirror the images horizontally in half of the steps: wrong for digits and text. `auto`: if the teacher makes the
    same decisions on mirrored images."""
    start: Literal["auto", "shapes", "fractal", "low-frequency", "noise"]
    """Images before the first step. Fractals differ in brightness and contrast as photographs do, and the steps keep
    that difference; from noise, all dreams end up alike in both. Shapes (blobs, lines, fractals) start with the pixels'
    mean and variance, as far as mean and std of the input give them. `auto`: fractals if batch norm or a record holds
    statistics of real images, unless shapes are much nearer to those of batch norm; shapes otherwise."""
    clamp: Literal["pixel-range"] | Positive
    """`pixel-range`: stay inside what a real pixel can be; a number c: stay inside [-c, c] after mean and std."""

    def at_once(self, num_images: int) -> int:
        """How many of `num_images` go through a network at once; all, while `images_at_once` is still "auto"."""
        return num_images if self.images_at_once == "auto" else min(num_images, self.images_at_once)


class Refresh(Settings):
    """New images during distillation, on which the current student and the teacher disagree.

    Adaptive DeepInversion (Yin et al. 2020, equation 6), starting from views of dreams instead of
    noise, so that few steps suffice.
    """

    every_steps: Count
    """Distillation steps between two refreshes; there are none in the first and last eighth of the steps."""
    num_images: Count
    """Images made at each refresh; half of every batch comes from all images made so far."""
    num_steps: Count
    """Adam steps per image."""
    lr: Positive
    weight: NonNegative
    """Weight of the disagreement, added to the terms of synthesis."""


class Blockwise(Settings):
    """Block-wise reconstruction: each block in turn is trained to the output of the teacher's block.

    As BRECQ does for quantised networks (Li et al. 2021, arXiv 2102.05426), here under the mask.
    """

    num_steps: Annotated[int, Field(ge=0)]
    """Adam steps per block; 0 skips it."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images per step; batch norm normalises by them."""
    lr: Positive
    """At the first step; it falls along a cosine."""


class Recovery(Settings):
    """How the student is recovered under its mask, one rung after another: statistics repair, layer-wise least squares,
    block-wise reconstruction, distillation."""

    fine_tuned: Literal["keep", "recover"] = "keep"
    """What to do with a student that was trained after pruning, as its weights show. `keep` returns it unchanged:
    recovery on dreams would lose, unnoticed, what it learnt from real data. `recover` treats it like any other."""
    repair_statistics: bool
    layerwise: bool = False
    """Fit each layer's kept weights to the teacher's outputs by least squares before distilling."""
    blockwise: Blockwise | None = None
    """Train each block to the output of the teacher's block before distilling; None: do not."""
    num_steps: Annotated[int, Field(ge=0)]
    """Distillation steps; 0 skips distillation."""
    batch_size: Count
    optimizer: Literal["adam", "sgd"]
    lr: Positive
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.0
    schedule: Literal["cosine", "constant"]
    temperature: Positive
    scale_by_temperature_squared: bool
    """Multiply the KL term by T² (Hinton et al. 2015, arXiv 1503.02531), so that T does not change the rate."""
    kd_weight: NonNegative = 1.0
    feature_weight: NonNegative
    """Weight of the block outputs' squared error relative to the teacher's mean square."""
    bn: Literal["adapt", "frozen"]
    """Batch norm during distillation. `adapt`: student and teacher normalise with batch statistics, and the student's
    stored ones are repaired at the end; `frozen`: with the stored statistics."""
    flip: bool | Literal["auto"]
    """Mirror half of the images horizontally; `auto` as in the synthesis."""
    crop_fraction: Fraction
    """Random shift, as a fraction of the image's side."""
    crop_border: Literal["auto", "edge", "zero"] = "zero"
    """What a shift uncovers: `edge` repeats the image's outermost pixels; `zero` is a zero of the network's input: the
    mean colour after mean and std, or black for raw bytes; `auto` chooses by the teacher's batch norm statistics."""
    zoom_fraction: Fraction = 0.0
    """Smallest area of a random crop, as a fraction of the image, resized to full size; 0: no crops."""
    cutmix_share: Fraction = 0.0
    """Share of batches in which a random rectangle of each image comes from another one (Yun et al. 2019)."""
    colour_jitter: Fraction | Literal["auto"] = 0.0
    """Largest random change of an image's saturation and contrast, as a fraction of what they are, and, halved, of its
    brightness, as a fraction of the range of pixels; 0: colours stay. `auto`: 0.5 for classifiers of one label whose
    dreams start from fractals, as those of photographs do; 0 otherwise."""
    refresh: Refresh | None = None


R = TypeVar("R", Synthesis, Recovery)


def in_batches_of(settings: R, batch_size: int) -> R:
    """The same settings with another batch size."""
    return settings.model_copy(update={"batch_size": batch_size})


class ProfileGates(Settings):
    """Requirements that a recovered, exported model must meet, and what a release may lose against its baseline."""

    min_agreement: Fraction
    """Top-1 agreement of the exported file with the teacher, on held-out synthetic images."""
    min_parity_top1: Fraction
    """Share of the same images on which the exported file decides like PyTorch."""
    max_parity_relative: Positive
    """Largest logit difference between file and PyTorch, as a fraction of the logits' standard deviation."""
    max_accuracy_drop_points: NonNegative
    """With --eval-data only: accuracy of the exported file below the teacher's, in percentage points."""
    max_precision_loss_points: NonNegative = 1.0
    """Agreement that fp16 or int8 may lose against float32 on the same held-out images, in percentage points."""

    # What `edgerecover gate` lets a release lose against its baseline.
    max_agreement_loss_points: NonNegative = 5.0
    """Loss of agreement with the teacher, in percentage points: what a few hundred held-out images can resolve."""
    max_accuracy_loss_points: NonNegative = 3.0
    """Loss of accuracy on real images, if both used the same ones; in percentage points."""
    max_latency_regression: NonNegative = 0.05
    """Increase in the median latency, as a fraction of the baseline's."""
    max_size_regression: NonNegative = 0.05
    """Increase in file size, as a fraction of the baseline's."""
    max_memory_regression: NonNegative = 0.1
    """Increase in the memory that loading and running the model adds, as a fraction of the baseline's."""


class LatencySettings(Settings):
    """How latency is measured: until both minima are met, as in MLPerf loadgen, after a separate warm-up."""

    num_warmup: Count
    min_queries: Annotated[int, Field(ge=1, le=10_000)]
    min_duration_s: NonNegative


class WithoutNorms(Settings):
    """The recipe for a teacher without normalisation layers, with or without an activation record.

    A file holds only what differs from `[synthesis]` and `[recovery]`.
    """

    synthesis: Synthesis
    recovery: Recovery


class Profile(Settings):
    """A recipe and its gates, named by intent."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    synthesis: Synthesis
    recovery: Recovery
    without_norms: WithoutNorms | None = None
    """None: such teachers use the same recipe as others."""
    gates: ProfileGates
    latency: LatencySettings
