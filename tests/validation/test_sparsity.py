import dataclasses

import pytest

from edgerecover.artifacts import Exported, Host, Latency, Outcome, Pattern, Precision, Race, Runner, Twin
from edgerecover.validation.sparsity import sparsity_verdict

FILE = Exported("model.onnx", "0" * 64, 1_000_000, 18, "dynamo", 1, 250_000, 62_500, compressed_bytes=300_000)
HOST = Host("x86_64", "EPYC", 2, "Linux")


def latency(ms):
    return Latency("one call", "onnxruntime 1", "CPU", {}, 1, 1, HOST, False, (), (ms,) * 300, 1.0, 0, 1, (10,) * 30)


RACE = Race(
    on_target=False,
    runners=(Runner(Precision.FP32, "onnxruntime", Outcome.SHIPPED, "", 1_000_000, latency(2.0)),),
    twins=(
        Twin("dense", 1.0, 1_010_000, 930_000, latency(2.0), "onnxruntime"),
        Twin("fewer channels", 0.5, 500_000, 460_000, latency(1.25), "onnxruntime"),
    ),
)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "sparse", "runtime", "says"),
    [
        (Pattern.DENSE, 0.0, "2:4", "tensorrt", "no zeros to use"),
        (Pattern.UNSTRUCTURED, 0.75, "none", "onnxruntime", "75 % unstructured zeros: onnxruntime multiplies by them"),
        (Pattern.UNSTRUCTURED, 0.75, "none", "onnxruntime", "None of this target's runtimes leaves them out"),
        (Pattern.UNSTRUCTURED, 0.75, "2:4", "tensorrt", "need the 2:4 pattern"),
        (Pattern.TWO_FOUR, 0.5, "2:4", "tensorrt", "TensorRT can use them"),
        (Pattern.TWO_FOUR, 0.5, "2:4", "tensorrt-rtx", "nothing shows that TensorRT-RTX uses them"),
        (Pattern.TWO_FOUR, 0.5, "2:4", "onnxruntime", "onnxruntime does not"),
        (Pattern.TWO_FOUR, 0.5, "none", "onnxruntime", "onnxruntime multiplies by them"),
        (Pattern.CHANNEL, 0.0, "none", "onnxruntime", "less to compute on any device"),
    ],
)
def test_the_verdict_is_honest(pattern, sparsity, sparse, runtime, says):
    assert says in sparsity_verdict(pattern, sparsity, sparse, (runtime,), FILE)


def test_without_a_dense_file_to_compare_with_it_says_what_packing_does():
    assert "compressed (zip, gzip) it is smaller" in sparsity_verdict(
        Pattern.UNSTRUCTURED, 0.9, "none", ("onnxruntime",), FILE
    )


def test_where_2_4_is_no_use_it_is_not_recommended():
    assert "2:4" not in sparsity_verdict(Pattern.UNSTRUCTURED, 0.9, "none", ("onnxruntime",), FILE)


def test_what_was_measured_is_said_with_its_interval():
    said = sparsity_verdict(Pattern.UNSTRUCTURED, 0.75, "none", ("onnxruntime",), FILE, RACE)
    assert "in the same runtime: onnxruntime 1.00× (1.00–1.00) the speed, 0.99 of the size." in said
    assert "The zeros make it faster in none of them." in said
    assert "slower" not in said
    assert "With 50 % of the MACs gone by channels it would be 1.60× (1.60–1.60) the speed of the dense one" in said
    assert "takes 1.00 MB (dense 1.01), compressed by gzip 0.30 MB (dense 0.93)" in said
    assert "compressed (zip, gzip)" not in said


def test_a_twin_that_did_not_run_is_left_out():
    race = dataclasses.replace(RACE, twins=(dataclasses.replace(RACE.twins[0], latency=None),))
    said = sparsity_verdict(Pattern.UNSTRUCTURED, 0.75, "none", ("onnxruntime",), FILE, race)
    assert "Measured" not in said


def in_mnn(ms):
    """The same race with MNN in it, where the dense network takes 2 ms and 1 MB."""
    runner = Runner(Precision.FP32, "mnn", Outcome.SHIPPED, "", 400_000, latency(ms))
    twin = Twin("dense", 1.0, 1_000_000, 930_000, latency(2.0), "mnn")
    race = dataclasses.replace(RACE, runners=(runner, *RACE.runners), twins=(*RACE.twins, twin))
    return sparsity_verdict(Pattern.UNSTRUCTURED, 0.8, "none", ("onnxruntime", "mnn"), FILE, race)


def test_every_runtime_has_its_own_verdict():
    said = in_mnn(1.25)
    assert "mnn 1.60× (1.60–1.60) the speed, 0.40 of the size; onnxruntime 1.00× (1.00–1.00) the speed" in said
    assert "The zeros make it faster in mnn." in said
    assert "slower" not in said
    assert "was not measured" not in said


def test_where_zeros_lose_it_says_so_and_what_helps():
    said = in_mnn(2.4)
    assert "mnn 0.83× (0.83–0.83) the speed, 0.40 of the size" in said
    assert "faster in none of them. They make it slower in mnn." in said
    assert "gain in 1×1 and linear layers and can lose in 3×3 ones: `prune --for mnn`" in said


def test_a_runtime_of_the_target_that_did_not_run_is_named():
    said = sparsity_verdict(Pattern.UNSTRUCTURED, 0.8, "none", ("onnxruntime", "mnn"), FILE, RACE)
    assert "MNN leaves them out of layers that are mostly zeros." in said
    assert "MNN was not measured here: `pip install 'edgerecover[mnn]'`" in said
    dense = sparsity_verdict(Pattern.DENSE, 0.0, "none", ("onnxruntime", "mnn"), FILE, RACE)
    assert "MNN" not in dense
    assert "faster in none" not in dense
