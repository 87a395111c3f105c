from edgerecover.artifacts import InputSpec, Origin, OutputSpec, Stated
from edgerecover.bundle.card import model_card
from edgerecover.bundle.sbom import Subject

INPUT = InputSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
SUBJECT = Subject("resnet20", INPUT, OutputSpec.one_label(10), "jetson-orin", "record", "0.1.0", {})
LINEAGE = {
    "dense": Origin("dense checkpoint", "a" * 64, name="dense.pt"),
    "export/int8": Origin("exported network, int8", "0" * 64, ("dense",), file="model.onnx"),
}
STATED = Stated("Apache-2.0", "sorter", "2.1", "Sorts digits.", ("A. Author",), ("Sorting.",), ("Never on letters.",))


def test_the_card_says_what_is_stated_and_what_is_known():
    card = model_card(SUBJECT, LINEAGE, STATED)
    for text in ("# sorter 2.1", "Sorts digits.", "Apache-2.0", "A. Author", "Never on letters.", "0" * 64, "dense.pt"):
        assert text in card
    assert "Statistics of real images" in card
    bare = model_card(SUBJECT, LINEAGE, Stated())
    assert "Licence: not stated" in bare
    assert bare.count("Not stated.") == 2


def test_what_others_state_stays_text():
    card = model_card(SUBJECT, LINEAGE, Stated(name="x\n# y <script>", limitations=("[a](javascript:b)\x1b[2J",)))
    assert "\n# y" not in card
    assert "\\<script\\>" in card
    assert "\\[a\\](javascript:b)" in card
    assert "\x1b" not in card
