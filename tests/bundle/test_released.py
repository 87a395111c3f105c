"""One bundle of every schema version that was ever written: they stay verifiable, readable and runnable."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgerecover.artifacts import sha256_of
from edgerecover.bundle.carry import open_as_folder, pack_bundle
from edgerecover.bundle.manifest import SCHEMA_VERSION
from edgerecover.bundle.signature import PublicKey
from edgerecover.bundle.verify import Signed, read_report, verify_bundle
from edgerecover.errors import VerificationError

RELEASED = sorted((Path(__file__).parent / "released").iterdir())
SCHEMAS = Path(__file__).parents[2] / "edgerecover" / "bundle" / "schemas"


@pytest.fixture(params=RELEASED, ids=lambda path: path.name)
def released(request, tmp_path):
    """A copy: the tests damage it."""
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def test_there_is_one_of_every_version():
    versions = [json.loads((path / "manifest.json").read_bytes())["schema_version"] for path in RELEASED]
    assert versions == list(range(1, SCHEMA_VERSION + 1))


def test_it_is_still_a_bundle(released):
    verified = verify_bundle(released)
    assert read_report(verified).target == verified.fields["target"]
    with open_as_folder(pack_bundle(released, released.with_suffix(".tar")).path) as (again, folder):
        assert again.files == verified.files
        assert sha256_of(folder / "manifest.json") == verified.manifest_sha256


@pytest.mark.parametrize("version", ["v2"])
def test_its_signature_still_holds(version, tmp_path):
    """By a key that was thrown away when the bundle had been signed."""
    pytest.importorskip("model_signing", reason="signatures need the extra edgerecover[signing]")
    released = Path(__file__).parent / "released" / version
    public = PublicKey(Path(__file__).parent / "keys" / f"{version}.pub")
    assert verify_bundle(released, public).signed is Signed.VERIFIED
    archive = pack_bundle(released, tmp_path / "b.tar").path
    assert verify_bundle(archive, public).signed is Signed.VERIFIED


def test_what_is_changed_in_it_is_still_found(released):
    for file in [path for path in released.rglob("*") if path.is_file() and path.name != "manifest.json"]:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(VerificationError):
            verify_bundle(released)
        file.write_bytes(content)
    os.remove(released / "model.onnx")  # noqa: PTH107 - as a user would
    with pytest.raises(VerificationError, match=r"missing: model\.onnx"):
        verify_bundle(released)


def test_it_still_runs(released):
    from edgerecover.runner.run import Options, run_bundle

    result = run_bundle(released, Options(num_threads=1))
    assert result.tried[0].golden is not None
    assert result.tried[0].golden.passed


def test_the_published_schemas_describe_it(released):
    jsonschema = pytest.importorskip("jsonschema")
    manifest = json.loads((released / "manifest.json").read_bytes())
    schema = SCHEMAS / f"manifest-{manifest['schema_version']}.json"
    if not schema.exists():
        assert manifest["schema_version"] == 1  # from before there were schemas
        return
    jsonschema.Draft202012Validator.check_schema(json.loads(schema.read_text()))
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(manifest)
    measurements = json.loads((released / "measurements.json").read_bytes())
    published = json.loads((SCHEMAS / f"measurements-{measurements['schema_version']}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.Draft202012Validator(published).validate(measurements)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(published).validate({**measurements, "manifest_sha256": "x"})
