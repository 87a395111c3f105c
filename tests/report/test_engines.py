from dataclasses import replace

from edgerecover.artifacts import (
    TENSORRT,
    TENSORRT_RTX,
    Acceptance,
    BatchRange,
    EngineFacts,
    EngineKey,
    EngineRecipe,
    SparseLayers,
)
from edgerecover.report.engines import acceptance_lines, engine_lines, sparse_words

KEY = EngineKey(TENSORRT, "10.3.0", ("8.7",), "Orin", "a" * 64)
FACTS = EngineFacts(
    file="m.engine",
    sha256="b" * 64,
    size_bytes=12_300_000,
    key=KEY,
    recipe=EngineRecipe(TENSORRT, batch=BatchRange(1, 2, 8), sparse_weights=True),
    build_s=61.25,
    num_layers=41,
    layers_by_type={"Int8": 27, "Float": 14},
    layers_source="engine inspector",
    sparse=SparseLayers(39, 0),
    dla_fallbacks=tuple(f"layer{number}" for number in range(10)),
    warnings=("a warning",),
)


def test_an_engine_in_words():
    assert engine_lines(FACTS) == [
        "12.3 MB, built by TensorRT 10.3.0 in 61.2 s",
        "for Orin (compute capability 8.7); batch 1 to 8, tuned for 2",
        "layers by input type: 27 in Int8, 14 in Float (engine inspector)",
        "sparse kernels: used in 0 of 39 layers whose weights have the 2:4 pattern",
        "run on the GPU instead of the deep learning accelerator: "
        "layer0, layer1, layer2, layer3, layer4, layer5, layer6, layer7 and 2 more",
        "warning: a warning",
    ]


def test_what_is_not_known_of_sparse_kernels_is_said():
    unknown = replace(FACTS, sparse=None)
    assert sparse_words(unknown) == "allowed; the build log does not say whether any was used"
    rtx = replace(unknown, key=replace(KEY, runtime=TENSORRT_RTX))
    assert "builds the same engine without" in sparse_words(rtx)
    assert sparse_words(replace(FACTS, recipe=EngineRecipe())) == "not requested"


def test_an_rtx_engine_for_every_gpu():
    facts = replace(FACTS, key=EngineKey(TENSORRT_RTX, "1.7.1.116", (), "", "a" * 64))
    assert engine_lines(facts)[1].startswith("for compute capability 8.0 and later;")


def test_acceptance_in_words():
    lines = acceptance_lines(Acceptance(False, "TensorRT-RTX 1.7.1.116", True, 0, ("node a (B): why",)))
    assert lines[0] == "the parser of TensorRT-RTX 1.7.1.116 rejects it"
    assert "stands in" in lines[1]
    assert lines[2:] == ["node a (B): why"]
    assert acceptance_lines(Acceptance(True, "TensorRT 10.3.0", False, 9, ())) == [
        "the parser of TensorRT 10.3.0 accepts it"
    ]


def test_warnings_of_a_parser_that_accepts_a_file_are_shown():
    lines = acceptance_lines(Acceptance(True, "TensorRT 10.3.0", False, 9, (), ("a cast",)))
    assert lines[-1] == "warning: a cast"
