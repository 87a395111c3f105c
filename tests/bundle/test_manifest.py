import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.bundle.manifest import FileEntry, Manifest, check_paths
from edgerecover.errors import VerificationError

DIGEST = "0123456789abcdef" * 4
ENTRY = {"sha256": DIGEST, "size_bytes": 3}

names = st.text(st.sampled_from("abcXYZ019_-. é"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and name != "manifest.json"
)
entries = st.builds(
    FileEntry, st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64), st.integers(0, 2**40)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(names, entries, max_size=5),
    st.dictionaries(st.text().filter(lambda key: key not in ("files", "schema_version")), values, max_size=3),
)
def test_parse_reads_back_what_dump_wrote(files, fields):
    by_case = {path.casefold(): path for path in files}
    manifest = Manifest({path: files[path] for path in by_case.values()}, fields)
    assert Manifest.parse(manifest.dump()) == manifest


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
    ],
)
def test_paths_that_leave_the_bundle_or_hide_are_refused(path):
    with pytest.raises(ValueError, match=r"not a plain relative path|manifest's own name"):
        check_paths({path: ENTRY})
    with pytest.raises(VerificationError):
        Manifest.parse(document(files={path: ENTRY}))


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["model.onnx", "Model.onnx"], "one file where case does not count"),
        (["a/b", "A/B"], "one file where case does not count"),
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
        (b'{"schema_version": 1, "schema_version": 1, "files": {}}', "'schema_version' stands twice"),
        (b'{"schema_version": 1, "files": {"a": {}, "a": {}}}', "'a' stands twice"),
        (b'{"schema_version": 1, "files": {}, "x": NaN}', "NaN is not JSON"),
        (b'{"files": {}}', "schema version 1 was expected, found None"),
        (b"[" * 200_000, "not valid JSON"),
        (document(schema_version=2), "found 2"),
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


def test_a_writer_cannot_replace_the_manifests_own_fields():
    with pytest.raises(ValueError, match="'files'"):
        Manifest({}, {"files": {}}).dump()
