import hashlib
import json
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edgerecover.bundle.manifest import (
    MAX_FILES,
    OWN_NAMES,
    FileEntry,
    Manifest,
    Measurements,
    canonical,
    check_paths,
)
from edgerecover.errors import VerificationError

DIGEST = "0123456789abcdef" * 4
ENTRY = {"sha256": DIGEST, "size_bytes": 3}

names = st.text(st.sampled_from("abcXYZ019_-. é"), min_size=1, max_size=8).filter(
    lambda name: name[-1] not in ". " and name not in OWN_NAMES
)
entries = st.builds(
    FileEntry, st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64), st.integers(0, 2**40)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


TAKEN = ("files", "schema_version", "manifest_sha256", "self_sha256")
files_of = st.dictionaries(names, entries, max_size=5).map(
    lambda files: {path: files[path] for path in {path.casefold(): path for path in files}.values()}
)
fields_of = st.dictionaries(st.text().filter(lambda key: key not in TAKEN), values, max_size=3)


@given(files_of, fields_of)
def test_parse_reads_back_what_dump_wrote(files, fields):
    manifest = Manifest(files, fields)
    assert Manifest.parse(manifest.dump()) == manifest
    measurements = Measurements(DIGEST, files, fields)
    assert Measurements.parse(measurements.dump()) == measurements


@given(files_of, fields_of)
def test_the_order_in_which_it_is_made_does_not_matter(files, fields):
    backwards = [dict(reversed(values.items())) for values in (files, fields)]
    assert Manifest(*backwards).dump() == Manifest(files, fields).dump()


@given(files_of, fields_of, st.data())
def test_any_other_byte_is_found(files, fields, data):
    for kind, written in ((Manifest, Manifest(files, fields)), (Measurements, Measurements(DIGEST, files, fields))):
        content = bytearray(written.dump())
        place = data.draw(st.integers(0, len(content) - 1))
        value = data.draw(st.integers(0, 255))
        if value == content[place]:
            value ^= 1
        content[place] = value
        with pytest.raises(VerificationError):
            kind.parse(bytes(content))


@given(fields_of)
def test_only_one_text_of_a_document_is_read(fields):
    content = Manifest({"a": FileEntry(DIGEST, 3)}, fields).dump()
    for other in (
        content + b"\n",
        content.rstrip(),
        json.dumps(json.loads(content), sort_keys=True).encode(),
        json.dumps(json.loads(content), sort_keys=True, indent=2, ensure_ascii=True).encode() + b"\n\n",
        content.replace(b'"size_bytes": 3', b'"size_bytes": 3.0'),
    ):
        with pytest.raises(VerificationError):
            Manifest.parse(other)


def test_the_seal_is_what_the_reference_says():
    content = Manifest({"a": FileEntry(DIGEST, 3)}, {"target": "pi"}).dump()
    document = json.loads(content)
    seal = document.pop("self_sha256")
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert seal == hashlib.sha256(text.encode()).hexdigest()
    assert canonical(document) == text.encode()


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 500 + "]" * 500, "1e999", "-0", "1" * 5000])
def test_odd_values_are_verification_errors(text):
    with pytest.raises(VerificationError):
        Manifest.parse(f'{{"schema_version": 2, "self_sha256": "{DIGEST}", "files": {{}}, "x": {text}}}'.encode())


def test_a_sealed_manifest_does_not_pass_as_an_older_one():
    content = Manifest({}, {}).dump().replace(b'"schema_version": 2', b'"schema_version": 1')
    with pytest.raises(VerificationError, match="schema version 1, which has no self_sha256"):
        Manifest.parse(content)


def test_older_versions_are_read_not_written():
    old = Manifest.parse(document())
    assert old.schema_version == 1
    with pytest.raises(ValueError, match="read, not written"):
        old.dump()


@pytest.mark.parametrize("name", [*OWN_NAMES, "Signature.JSON"])
def test_the_bundles_own_names_are_not_listed(name):
    with pytest.raises(ValueError, match="keeps for its own"):
        check_paths({name: ENTRY})


def document(**changes):
    return json.dumps({"schema_version": 1, "files": {"a/b.onnx": ENTRY}} | changes).encode()


def test_fields_stay_beside_the_files():
    manifest = Manifest.parse(document(target="jetson-orin"))
    assert manifest.fields == {"target": "jetson-orin"}
    assert manifest.files == {"a/b.onnx": FileEntry(DIGEST, 3)}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "",
        ".",
        "..",
        "a\\b",
        "C:/x",
        "C:x",
        "a\nb",
        "a\0b",
        "\x1b[2J",
        "manifest.json",
        "MANIFEST.json",
        "a\u202egpj.exe",
        "a\u2028b",
        "\ud800",
        "con",
        "a/AUX.onnx",
        "lpt1",
        "dot.",
        "space ",
        "a /b",
        "x" * 256,
    ],
)
def test_paths_that_leave_the_bundle_or_hide_are_refused(path):
    with pytest.raises(ValueError, match=r"not a plain relative path|for its own|Windows keeps|longer than"):
        check_paths({path: ENTRY})
    with pytest.raises(VerificationError):
        Manifest.parse(document(files={path: ENTRY}))


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["model.onnx", "Model.onnx"], "one file where case or composition does not count"),
        (["a/b", "A/B"], "one file where case or composition does not count"),
        (["caf\u00e9", "cafe\u0301"], "one file where case or composition does not count"),
        (["STRASSE", "straße"], "one file where case or composition does not count"),
        (["a", "a/b"], "both a file and the folder"),
        (["A/b/c", "a/B"], "both a file and the folder"),
    ],
)
def test_paths_that_are_one_place_are_refused(paths, says):
    with pytest.raises(ValueError, match=says):
        check_paths(dict.fromkeys(paths, ENTRY))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "should be an object, found list"),
        (b'{"schema_version": 1, "schema_version": 1, "files": {}}', "'schema_version' appears twice"),
        (b'{"schema_version": 1, "files": {"a": {}, "a": {}}}', "'a' appears twice"),
        (b'{"schema_version": 1, "files": {}, "x": NaN}', "NaN is not JSON"),
        (b'{"files": {}}', "schema version up to 2 was expected, found None"),
        (b"[" * 200_000, "not valid JSON"),
        (document(schema_version=3), "found 3"),
        (document(schema_version=0), "found 0"),
        (document(schema_version=2), "not the digest of its text"),
        (document(self_sha256=DIGEST), "schema version 1, which has no self_sha256"),
        (document(schema_version=True), "found True"),
        (document(schema_version="1"), "found '1'"),
        (document(files=[]), "files should be an object"),
        (document(files={"a": []}), "'a' should be an object"),
        (document(files={"a": {"sha256": DIGEST}}), "should have a sha256 and a size_bytes"),
        (document(files={"a": ENTRY | {"more": 1}}), "should have a sha256"),
        (document(files={"a": ENTRY | {"sha256": DIGEST.upper()}}), "should have a sha256"),
        (document(files={"a": ENTRY | {"size_bytes": -1}}), "should have a sha256"),
        (document(files={"a": ENTRY | {"size_bytes": True}}), "should have a sha256"),
        (document(files={"a": ENTRY | {"size_bytes": 3.0}}), "should have a sha256"),
    ],
)
def test_a_malformed_manifest_is_a_verification_error(content, says):
    with pytest.raises(VerificationError, match=says):
        Manifest.parse(content)


@pytest.mark.parametrize("name", TAKEN)
def test_a_writer_cannot_replace_the_manifests_own_fields(name):
    for written in (Manifest({}, {name: {}}), Measurements(DIGEST, {}, {name: {}})):
        with pytest.raises(ValueError, match=f"'{name}'"):
            written.dump()


def test_too_many_files():
    with pytest.raises(ValueError, match="exceed the 10,000"):
        check_paths(dict.fromkeys(map(str, range(MAX_FILES + 1)), ENTRY))


def sealed(**document):
    seal = hashlib.sha256(canonical(document)).hexdigest()
    return canonical({**document, "self_sha256": seal})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (sealed(schema_version=2, manifest_sha256=DIGEST, files={}), "schema version 1 was expected, found 2"),
        (sealed(schema_version=1, files={}), "manifest_sha256 is no digest: None"),
        (sealed(schema_version=1, manifest_sha256="x", files={}), "manifest_sha256 is no digest: 'x'"),
        (sealed(schema_version=1, manifest_sha256=DIGEST), "files should be an object"),
        (sealed(schema_version=1, manifest_sha256=DIGEST, files={"../x": ENTRY}), "not a plain relative path"),
        (sealed(schema_version=1, manifest_sha256=DIGEST, files={"manifest.json": ENTRY}), "for its own"),
    ],
)
def test_malformed_measurements_are_a_verification_error(content, says):
    with pytest.raises(VerificationError, match=says):
        Measurements.parse(content)


@given(st.lists(st.text(max_size=12), max_size=4))
@example(["é", "e\u0301"])
def test_paths_that_pass_are_one_file_each_everywhere(paths):
    """On systems that fold case, compose or decompose, every listed path still has a place of its own."""
    try:
        check_paths(dict.fromkeys(paths, ENTRY))
    except ValueError:
        assume(False)
    for form in ("NFC", "NFD"):
        folded = {unicodedata.normalize(form, path.casefold()) for path in paths}
        assert len(folded) == len(set(paths))
        assert not folded & set(OWN_NAMES)
