import pytest

from edgerecover.artifacts import Pattern
from edgerecover.validate.sparsity import sparsity_verdict


@pytest.mark.parametrize(
    ("pattern", "sparsity", "sparse", "runtime", "says"),
    [
        (Pattern.DENSE, 0.0, "2:4", "tensorrt", "no zeros to use"),
        (Pattern.UNSTRUCTURED, 0.75, "none", "onnxruntime", "75% unstructured zeros bring no speed-up"),
        (Pattern.UNSTRUCTURED, 0.75, "2:4", "tensorrt", "need the 2:4 pattern"),
        (Pattern.TWO_FOUR, 0.5, "2:4", "tensorrt", "TensorRT can use them"),
        (Pattern.TWO_FOUR, 0.5, "2:4", "onnxruntime", "onnxruntime does not"),
        (Pattern.TWO_FOUR, 0.5, "none", "onnxruntime", "no sparse tensor cores"),
    ],
)
def test_the_verdict_is_honest(pattern, sparsity, sparse, runtime, says):
    assert says in sparsity_verdict(pattern, sparsity, sparse, runtime)


def test_the_file_shrinks_only_when_compressed():
    assert "only when it is compressed" in sparsity_verdict(Pattern.UNSTRUCTURED, 0.9, "none", "onnxruntime")


def test_where_2_4_is_no_use_it_is_not_recommended():
    assert "2:4" not in sparsity_verdict(Pattern.UNSTRUCTURED, 0.9, "none", "onnxruntime")
