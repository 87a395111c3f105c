import json
from dataclasses import replace

import pytest

from edgerecover.artifacts import InputSpec, Origin, OutputSpec, Stated, TaskKind
from edgerecover.bundle.sbom import Subject, bill_of_materials

SUBJECT = Subject(
    architecture="models.py:resnet20",
    input=InputSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    output=OutputSpec.one_label(10),
    target="jetson-orin",
    data_used="record",
    edgerecover_version="0.1.0",
    tool_versions={"python": "3.11.9", "torch": "2.15.0+cpu"},
)
LINEAGE = {
    "dense": Origin("dense checkpoint", "a" * 64, name="dense.pt"),
    "pruned": Origin("pruned checkpoint", "b" * 64, name="model.pt"),
    "record": Origin("activation record of real images", "c" * 64, name="dense.record"),
    "dreams/train": Origin("96 synthetic images to learn from", "d" * 64, ("dense", "record")),
    "recovered": Origin(
        "recovered network", "e" * 64, ("dense", "pruned", "dreams/train"), file="recovered.safetensors"
    ),
    "export/fp32": Origin("exported network", "f" * 64, ("recovered",)),
    "export/int8": Origin("exported network, int8", "0" * 64, ("export/fp32",), file="model.onnx"),
}
STATED = Stated("Apache-2.0", "sorter", "2.1", "Sorts digits.", ("A. Author",), ("Sorting.",), ("Never on letters.",))


def bill(**changes):
    return json.loads(bill_of_materials(changes.get("subject", SUBJECT), LINEAGE, changes.get("stated", STATED)))


def test_the_bill_names_the_model_and_all_it_was_made_from():
    document = bill()
    model = document["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "sorter", "2.1")
    assert model["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    assert model["licenses"] == [{"license": {"acknowledgement": "declared", "id": "Apache-2.0"}}] or model[
        "licenses"
    ] == [{"license": {"id": "Apache-2.0"}}]
    kinds = {one["bom-ref"]: one["type"] for one in document["components"]}
    assert kinds.keys() == LINEAGE.keys() - {"export/int8"}
    assert {kinds["record"], kinds["dreams/train"]} == {"data"}
    graph = {one["ref"]: set(one.get("dependsOn", ())) for one in document["dependencies"]}
    assert {name: graph[name] for name in LINEAGE} == {name: set(one.parents) for name, one in LINEAGE.items()}
    tools = {one["name"]: one["version"] for one in document["metadata"]["tools"]["components"]}
    assert tools == {"edgerecover": "0.1.0", **SUBJECT.tool_versions}
    card = model["modelCard"]
    assert card["considerations"] == {"useCases": ["Sorting."], "technicalLimitations": ["Never on letters."]}
    assert {one["ref"] for one in card["modelParameters"]["datasets"]} == {"record", "dreams/train"}


def test_outputs_are_called_what_they_are():
    def output(task):
        subject = replace(SUBJECT, output=OutputSpec(task, (10,)))
        card = bill(subject=subject)["metadata"]["component"]["modelCard"]
        return card["modelParameters"]["outputs"][0]["format"]

    assert output(TaskKind.ONE_LABEL) == "float32 logits (N, 10)"
    assert output(TaskKind.EMBEDDING) == "float32 embedding (N, 10)"
    assert output(TaskKind.REGRESSION) == "float32 values (N, 10)"


def test_it_is_valid_cyclonedx():
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for stated in (STATED, Stated(), Stated(licence="Our own licence, see LICENCE.txt"), Stated("MIT OR Apache-2.0")):
        try:
            problem = validator.validate_str(bill_of_materials(SUBJECT, LINEAGE, stated).decode())
        except MissingOptionalDependencyException as error:
            pytest.skip(str(error))
        assert problem is None, problem


def test_a_file_from_elsewhere_has_no_parents():
    lineage = {"dense": LINEAGE["dense"], "given": Origin("ONNX file from elsewhere", "0" * 64, file="model.onnx")}
    document = json.loads(bill_of_materials(SUBJECT, lineage, Stated()))
    assert document["metadata"]["component"]["bom-ref"] == "given"


def test_the_same_model_gives_the_same_bytes():
    again = bill_of_materials(SUBJECT, dict(reversed(LINEAGE.items())), STATED)
    assert {**json.loads(again), "metadata": None, "serialNumber": None} == {
        **bill(),
        "metadata": None,
        "serialNumber": None,
    }
    assert bill_of_materials(SUBJECT, LINEAGE, STATED) == bill_of_materials(SUBJECT, LINEAGE, STATED)
    assert "timestamp" not in bill()["metadata"]
    assert bill()["serialNumber"] != bill(stated=Stated())["serialNumber"]
