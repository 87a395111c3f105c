import os
import sys

import pytest

from edgerecover.bundle.manifest import MAX_OWN_BYTES, OWN_NAMES, Measurements
from edgerecover.bundle.verify import BundleDiffersError, Signed, read_report, verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError, VerificationError

FILES = {"model.onnx": b"onnx" * 100, "report.md": "text", "golden/inputs.npy": b"123"}


@pytest.fixture
def bundle(tmp_path):
    measured = {"report.json": b"{}"}
    return write_bundle(FILES, tmp_path / "b", {"target": "pi"}, measured, {"verdict": "pass"})


def test_what_a_whole_bundle_is(bundle):
    verified = verify_bundle(bundle)
    assert verified.files.keys() == {*FILES, "report.json"}
    assert verified.manifest.files.keys() == FILES.keys()
    assert verified.fields == {"target": "pi", "verdict": "pass"}
    assert verified.own.keys() == {"manifest.json", "measurements.json"}
    assert verified.signed is Signed.ABSENT
    assert verified.read("report.md") == b"text"
    with pytest.raises(BadInputError, match=r"holds no other\.txt"):
        verified.read("other.txt")


def test_what_is_read_is_what_was_verified(bundle):
    verified = verify_bundle(bundle)
    (bundle / "report.md").write_text("tex!")
    with pytest.raises(BundleDiffersError, match="changed since it was verified"):
        verified.read("report.md")


def test_a_report_that_is_none(bundle):
    with pytest.raises(BadInputError, match="cannot be read"):
        read_report(verify_bundle(bundle))


def test_every_problem_is_named_at_once(bundle):
    (bundle / "report.md").unlink()
    (bundle / "model.onnx").write_bytes(b"ONNX" * 100)
    (bundle / "golden" / "inputs.npy").write_bytes(b"1234")
    (bundle / "golden" / "stray").write_bytes(b"")
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert caught.value.message.splitlines()[1:] == [
        "  changed: golden/inputs.npy (size 4 instead of 3)",
        "  extra: golden/stray",
        "  changed: model.onnx (sha256 differs)",
        "  missing: report.md",
    ]
    assert [(one.kind, one.path) for one in caught.value.differences] == [
        ("changed", "golden/inputs.npy"),
        ("extra", "golden/stray"),
        ("changed", "model.onnx"),
        ("missing", "report.md"),
    ]
    assert caught.value.exit_code == 4


def test_one_flipped_bit_is_found(bundle):
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[200] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(VerificationError, match=r"changed: model\.onnx \(sha256 differs\)"):
        verify_bundle(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links and pipes")
def test_links_and_pipes_are_not_files(bundle, tmp_path):
    same = tmp_path / "same"
    same.write_bytes(b"onnx" * 100)
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to(same)
    (bundle / "report.md").unlink()
    os.mkfifo(bundle / "report.md")
    (bundle / "linked").symlink_to(tmp_path)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert "changed: model.onnx (a symbolic link, not a file)" in caught.value.message
    assert "changed: report.md (not a regular file)" in caught.value.message
    assert "extra: linked (a symbolic link, not a file)" in caught.value.message


def test_an_empty_folder_is_extra(bundle):
    (bundle / "golden" / "more" / "deep").mkdir(parents=True)
    with pytest.raises(VerificationError, match=r"extra: golden/more/deep/ \(an empty folder\)"):
        verify_bundle(bundle)


def test_parts_of_two_bundles(bundle, tmp_path):
    other = write_bundle(FILES, tmp_path / "other", {"target": "orin"}, {"report.json": b"{}"}, {"verdict": "pass"})
    (bundle / "manifest.json").write_bytes((other / "manifest.json").read_bytes())
    with pytest.raises(VerificationError, match=r"measurements\.json belongs to another manifest\.json"):
        verify_bundle(bundle)


def test_measurements_cannot_be_left_out(bundle):
    (bundle / "measurements.json").unlink()
    with pytest.raises(VerificationError, match=r"missing: measurements\.json"):
        verify_bundle(bundle)


def test_a_file_that_is_listed_twice(bundle):
    verified = verify_bundle(bundle)
    both = {**verified.measurements.files, "report.md": verified.files["report.md"]}
    (bundle / "measurements.json").write_bytes(Measurements(verified.manifest_sha256, both, {}).dump())
    with pytest.raises(VerificationError, match=r"both list 'report\.md'"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["signature.json", "signature.sha256"])
def test_half_a_signature_is_found(bundle, name):
    (bundle / name).write_bytes(b"{}")
    with pytest.raises(VerificationError, match=r"signature\.sha256 is not the digest of signature\.json"):
        verify_bundle(bundle)


def test_a_sweep_over_every_byte_of_a_small_bundle(tmp_path):
    """Every byte of every file, each with one flipped bit; no key is at hand."""
    bundle = write_bundle({"a": b"ab", "b/c": b"1"}, tmp_path / "b", {}, {"report.md": b"x"}, {})
    (bundle / "signature.json").write_bytes(b"{}")
    from edgerecover.bundle.verify import signature_digest

    (bundle / "signature.sha256").write_bytes(signature_digest(b"{}"))
    assert verify_bundle(bundle).signed is Signed.NOT_CHECKED
    assert {*OWN_NAMES, "a", "report.md", "b"} == {path.name for path in bundle.iterdir()}
    num_changes = 0
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for place in range(len(whole)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(VerificationError):
                verify_bundle(bundle)
            num_changes += 1
        file.write_bytes(whole)
    assert num_changes > 800
    verify_bundle(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_folder_swapped_for_a_link_is_found(bundle, tmp_path):
    (bundle / "golden").rename(tmp_path / "moved")
    (bundle / "golden").symlink_to(tmp_path / "moved")
    with pytest.raises(VerificationError, match=r"missing: golden/inputs\.npy"):
        verify_bundle(bundle)


def test_a_long_list_is_cut(bundle):
    for number in range(30):
        (bundle / f"{number:02}").write_bytes(b"")
    with pytest.raises(VerificationError, match="extra: 19\n  and 10 more"):
        verify_bundle(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_a_strays_name_does_not_reach_the_terminal_raw(bundle):
    (bundle / "\x1b[2Jgone").write_bytes(b"")
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle)
    assert "\x1b" not in caught.value.message


def test_what_is_no_bundle_is_bad_input(tmp_path, bundle):
    with pytest.raises(BadInputError, match="does not exist"):
        verify_bundle(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="neither a folder nor a tar archive"):
        verify_bundle(bundle / "model.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        verify_bundle(tmp_path / "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_linked_manifest_is_none(bundle, tmp_path):
    (bundle / "manifest.json").rename(tmp_path / "m.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "m.json")
    with pytest.raises(BadInputError, match="not a bundle"):
        verify_bundle(bundle)


def test_an_oversize_manifest_is_not_read(bundle):
    with (bundle / "manifest.json").open("ab") as file:
        file.truncate(MAX_OWN_BYTES + 1)
    with pytest.raises(VerificationError, match="larger than the 4 MiB"):
        verify_bundle(bundle)


def test_a_manifest_that_lists_another_place(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("golden/inputs.npy", "../inputs.npy"))
    with pytest.raises(VerificationError, match="self_sha256 is not the digest of its text"):
        verify_bundle(bundle)
