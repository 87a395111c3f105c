import numpy as np
import pytest
import torch

import edgerecover
from edgerecover.errors import BadInputError, VerificationError


def test_a_bundle_is_verified_read_and_run(run, tmp_path):
    *_, report = run
    for path in (report.bundle, report.save_bundle(tmp_path / "a.tar")):
        bundle = edgerecover.open_bundle(path)
        assert bundle.verdict == report.verdict
        assert bundle.details.student == report.details.student
        assert bundle.manifest["target"] == "onnx-generic"
        assert bundle.input.shape == (1, 8, 8)
        assert (bundle.input.mean, bundle.input.std) == ((0.5,), (0.25,))
        assert "model.onnx" in bundle.files
        assert (bundle.signature, bundle.signer) == ("absent", "")
        assert bundle._repr_html_() == report._repr_html_()
        images = np.load(report.bundle / "golden" / "inputs.npy")
        scores = bundle.predict(torch.from_numpy(images))
        np.testing.assert_allclose(scores, np.load(report.bundle / "golden" / "outputs.npy"), atol=1e-5)
        assert bundle.session() is bundle.session()


def test_the_model_answers_as_the_recovered_network(run):
    *_, report = run
    images = np.load(report.bundle / "golden" / "inputs.npy")
    with torch.no_grad():
        expected = report.model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(edgerecover.open_bundle(report.bundle).predict(images), expected, atol=1e-4)


def test_images_of_another_shape_are_refused(run):
    *_, report = run
    with pytest.raises(BadInputError, match=r"\(N, 1, 8, 8\)"):
        edgerecover.open_bundle(report.bundle).predict(np.zeros((1, 3, 8, 8)))


def test_a_changed_bundle_is_not_opened(run, tmp_path):
    *_, report = run
    folder = report.save_bundle(tmp_path / "a.bundle")
    bundle = edgerecover.open_bundle(folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(VerificationError, match=r"changed: model\.onnx"):
        edgerecover.open_bundle(folder)
    with pytest.raises(VerificationError, match="changed while it was read"):
        bundle.session()


def test_a_signature_that_is_asked_for_must_be_there(run, tmp_path):
    *_, report = run
    with pytest.raises(VerificationError, match="is not signed"):
        edgerecover.open_bundle(report.bundle, public_key=tmp_path / "key.pub")
    with pytest.raises(BadInputError):
        edgerecover.open_bundle(tmp_path / "nothere")
