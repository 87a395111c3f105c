"""The bill of materials of a bundle: a CycloneDX ML-BOM of its model and all that it was made from.

The same run gives the same text: the serial number follows from the content, and there is no time stamp.
CycloneDX 1.6, ECMA-424; written by cyclonedx-python-lib.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Activation, InputSpec, Origin, OutputSpec, Stated, TaskKind

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

MODEL = "model.onnx"
_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/")
"""Of serial numbers that are made from the content."""


_SCORES = {Activation.NONE: "logits", Activation.SOFTMAX: "probabilities", Activation.SIGMOID: "probabilities"}
_VALUES = {TaskKind.EMBEDDING: "embedding", TaskKind.REGRESSION: "values"}


@dataclass(frozen=True)
class Subject:
    """What is said of the shipped model beside its lineage."""

    architecture: str
    input: InputSpec
    output: OutputSpec
    target: str
    data_used: str
    edgerecover_version: str
    tool_versions: Mapping[str, str]


def _words_of(output: OutputSpec) -> str:
    return _VALUES.get(output.task, _SCORES[output.activation])


def bill_of_materials(subject: Subject, lineage: Mapping[str, Origin], stated: Stated) -> bytes:
    """The ML-BOM as JSON.

    Args:
        subject: the shipped model.
        lineage: by name; one of them is `MODEL`.
        stated: licence and card.

    Raises:
        StopIteration: no origin is the shipped model.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    components = {name: _component(name, origin, stated) for name, origin in lineage.items()}
    shipped = next(name for name, origin in lineage.items() if origin.file == MODEL)
    tools = [_tool("edgerecover", subject.edgerecover_version)]
    tools += [_tool(name, version) for name, version in subject.tool_versions.items()]
    bom = Bom(
        metadata=BomMetaData(component=components[shipped], tools=ToolRepository(components=tools)),
        components=[component for name, component in components.items() if name != shipped],
    )
    for name, origin in lineage.items():
        bom.register_dependency(components[name], [components[parent] for parent in origin.parents])
    with warnings.catch_warnings():
        # A file from elsewhere has no parents that are known, which the library has an opinion on.
        warnings.simplefilter("ignore")
        document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"], document["serialNumber"]
    # The library has no model cards yet.
    document["metadata"]["component"]["modelCard"] = _card(subject, lineage, stated)
    serial = uuid.uuid5(_SERIALS, json.dumps(document, sort_keys=True))
    document["serialNumber"] = f"urn:uuid:{serial}"
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _component(name: str, origin: Origin, stated: Stated) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalContact

    is_shipped = origin.file == MODEL
    kind = ComponentType.DATA if name.startswith(("dreams/", "record")) else ComponentType.MACHINE_LEARNING_MODEL
    licence = stated.licence if is_shipped else ""
    return Component(
        type=kind,
        bom_ref=name,
        name=(stated.name if is_shipped else "") or origin.name or origin.file or name,
        version=(stated.version or None) if is_shipped else None,
        description=(stated.description if is_shipped else "") or origin.what,
        licenses=[LicenseFactory().make_from_string(licence)] if licence else None,
        authors=[OrganizationalContact(name=author) for author in stated.authors] if is_shipped else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=origin.sha256)],
        properties=[Property(name="edgerecover:file", value=origin.file)] if origin.file else None,
    )


def _tool(name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    kind = ComponentType.APPLICATION if name == "edgerecover" else ComponentType.LIBRARY
    purl = PackageURL("generic" if name == "python" else "pypi", None, name, version)
    return Component(type=kind, bom_ref=f"tool/{name}", name=name, version=version, purl=purl)


def _card(subject: Subject, lineage: Mapping[str, Origin], stated: Stated) -> dict[str, Any]:
    """A `modelCard` of CycloneDX 1.6."""
    channels, height, width = subject.input.shape
    sides = ", ".join(map(str, subject.output.shape))
    considerations = {"useCases": list(stated.intended_uses), "technicalLimitations": list(stated.limitations)}
    properties = {"edgerecover:target": subject.target, "edgerecover:data_used": subject.data_used}
    return {
        "modelParameters": {
            "task": subject.output.description.partition(",")[0],
            "modelArchitecture": subject.architecture,
            "datasets": [{"ref": name} for name in lineage if name.startswith(("dreams/", "record"))],
            "inputs": [{"format": f"float32 (N, {channels}, {height}, {width})"}],
            "outputs": [{"format": f"float32 {_words_of(subject.output)} (N, {sides})"}],
        },
        "considerations": {name: said for name, said in considerations.items() if said},
        "properties": [{"name": name, "value": value} for name, value in properties.items()],
    }
