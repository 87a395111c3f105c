"""A profile: how images are synthesized and a student is recovered, and the gates of the result."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from edgerecover.config.schema import Count, Fraction, NonNegative, Positive, Settings


class Synthesis(Settings):
    """How images are dreamt from the teacher: DeepInversion (Yin et al. 2020, arXiv 1912.08795).

    loss = class_weight · class term + bn_weight · BN term + record_weight · record's distance
         + pixel_weight · pixel term + tv_weight · TV + l2_weight · mean square.
    """

    num_train: Count
    num_calibration: Count
    num_held_back: Count
    batch_size: Count
    source: Literal["dream", "shapes", "fractal", "noise"] = "dream"
    """`shapes`, `fractal` and `noise` are made from formulas, without the teacher; of what stands below they use
    `clamp`."""
    images_at_once: Count | Literal["auto"] = "auto"
    """Of a batch, how many go through the teacher at once; the statistics are of all of them. `auto`: as many as fit
    into 600 MB or half of the free memory, whichever is less; on a GPU, into half of its free memory."""
    num_steps: Count
    """Adam steps per batch of images."""
    coarse_fraction: Fraction = 0.0
    """Share of the steps, the first ones, in which the teacher sees the images at half their size, for a quarter of the
    time. Left out for images under 64 pixels, and where the teacher takes one size only or a record is matched."""
    lr: Positive
    schedule: Literal["cosine", "constant"]
    betas: tuple[Fraction, Fraction]
    class_term: Literal["target", "entropy"]
    """`target`: cross entropy to balanced class targets; `entropy`: low entropy of the teacher's output, no target."""
    class_weight: NonNegative
    class_temperature: Positive = 1.0
    """T of T · cross entropy(logits / T): above 1, it goes on asking for wider margins when the class is decided. Real
    images have wide ones."""
    bn_weight: NonNegative
    bn_distance: Literal["relative", "l2"]
    """`l2`: the sum over layers of ‖μ-μ̂‖₂ + ‖σ²-σ̂²‖₂ over channels, as published. `relative`: the mean over layers,
    each norm divided by that of the stored σ̂, or σ̂²: the weight means the same for networks of any scale and depth."""
    patch_weight: NonNegative = 0.0
    """Of the entropy of patch similarities (Li et al. 2022, arXiv 2203.02250), for transformers without batch norm."""
    record_weight: NonNegative = 10.0
    """Of an activation record's distance; used only with `--record`."""
    pixel_weight: NonNegative = 0.0
    """Of the pixels' mean and variance, compared with mean and std of the input as BN statistics are. Left out where
    mean and std are not those of any images (0 and 1, 0.5 and 0.5)."""
    tv_weight: NonNegative
    tv_reduction: Literal["mean", "sum"] = "mean"
    """`mean` over batch and pixels keeps the weight's meaning at every batch size and resolution."""
    l2_weight: NonNegative = 0.0
    jitter_fraction: Fraction
    """Largest random roll per step as a fraction of the image's side."""
    flip: bool | Literal["auto"]
    """Mirror half of the steps horizontally: wrong for digits and text. `auto`: where the teacher decides alike on
    mirrored images."""
    start: Literal["auto", "shapes", "fractal", "low-frequency", "noise"]
    """What is there before the first step. Fractals differ in brightness and contrast as photographs do, and the steps
    leave that difference standing; from noise, all dreams come out alike in both. Shapes (blobs, lines,
    fractals) have the pixels' mean and variance from the beginning, as far as mean and std of the input tell them.
    `auto`: fractals where batch norm or a record tells what real images do, shapes where nothing does."""
    clamp: Literal["pixel-range"] | Positive
    """`pixel-range`: stay inside what a real pixel can be; a number c: stay inside [-c, c] after mean and std."""

    def at_once(self, num_images: int) -> int:
        """How many of so many images go through a network at once; all, where that was not found out."""
        return num_images if self.images_at_once == "auto" else min(num_images, self.images_at_once)


class Refresh(Settings):
    """New images while distilling, on which the student of the moment and the teacher disagree.

    Adaptive DeepInversion (Yin et al. 2020, equation 6), started from views of dreams instead of noise: few steps do.
    """

    every_steps: Count
    """Distillation steps between two refreshes; there is none in the first and last eighth of them."""
    num_images: Count
    """Made at each refresh; half of every batch comes from all that were made so far."""
    num_steps: Count
    """Adam steps per image."""
    lr: Positive
    weight: NonNegative
    """Of the disagreement, beside the terms of synthesis."""


class Recovery(Settings):
    """How the student is brought back under its mask: statistics repair, layer-wise least squares, distillation."""

    fine_tuned: Literal["keep", "recover"] = "keep"
    """A student that was trained since it was pruned, as its weights show: `keep` hands it back as it came, because
    what it has learnt from real data would be lost without a trace on dreams; `recover` treats it like any other."""
    repair_statistics: bool
    layerwise: bool = False
    """Fit each layer's kept weights to the teacher's outputs by least squares before distilling."""
    num_steps: Annotated[int, Field(ge=0)]
    """Distillation steps; 0 leaves distillation out."""
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
    """`adapt`: BN normalises with batch statistics while distilling, to the mean and variance that the teacher makes of
    the batch; `frozen`: with the stored ones."""
    flip: bool | Literal["auto"]
    """Mirror half of the images horizontally; `auto` as in the synthesis."""
    crop_fraction: Fraction
    """Random shift, as a fraction of the image's side."""
    crop_border: Literal["auto", "edge", "zero"] = "zero"
    """What a shift uncovers: `edge` repeats the image's outermost pixels; `zero` is a zero of the network's input, the
    mean colour after mean and std, but black where pixels go in as bytes; `auto` is the one that the teacher's batch
    norm statistics speak for."""
    zoom_fraction: Fraction = 0.0
    """Smallest area of a random crop, stretched to the whole image; 0 leaves it out."""
    cutmix_share: Fraction = 0.0
    """Share of batches in which a random rectangle of each image comes from another one (Yun et al. 2019)."""
    refresh: Refresh | None = None


R = TypeVar("R", Synthesis, Recovery)


def in_batches_of(settings: R, batch_size: int) -> R:
    """The same with another batch size."""
    return settings.model_copy(update={"batch_size": batch_size})


class ProfileGates(Settings):
    """The least that a recovered, exported model must show."""

    min_agreement: Fraction
    """Exported file against the teacher on held-back synthetic images, top-1."""
    min_parity_top1: Fraction
    """Exported file against PyTorch, same decision, on the same images."""
    max_parity_relative: Positive
    """Largest logit difference between them, as a fraction of the logits' standard deviation."""
    max_accuracy_drop_points: NonNegative
    """With --eval-data only: exported below teacher, in percentage points."""
    max_precision_loss_points: NonNegative = 1.0
    """Agreement with the teacher that fp16 or int8 may cost against float32, on the same held-back images."""

    # What `edgerecover gate` lets a release lose against its baseline.
    max_agreement_loss_points: NonNegative = 5.0
    """Of agreement with the teacher, in percentage points: what a few hundred held-back images can tell."""
    max_accuracy_loss_points: NonNegative = 3.0
    """Of accuracy on real images, where both were judged on the same ones; in percentage points."""
    max_latency_regression: NonNegative = 0.05
    """How much longer a typical query may take, as a fraction of the baseline's."""
    max_size_regression: NonNegative = 0.05
    """How much larger the file may be, likewise;"""
    max_memory_regression: NonNegative = 0.1
    """and how much more memory loading and running it may add."""


class LatencySettings(Settings):
    """How latency is measured: until both minima are met (as MLPerf loadgen does), warm-up kept apart."""

    num_warmup: Count
    min_queries: Annotated[int, Field(ge=1, le=10_000)]
    min_duration_s: NonNegative


class WithoutNorms(Settings):
    """The recipe for a teacher without any normalisation layer; an activation record is matched beside it.

    In a file, only what differs from `[synthesis]` and `[recovery]` is written.
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
    """Left out: no difference is made."""
    gates: ProfileGates
    latency: LatencySettings
