import onnx
import pytest

from edgerecover.doctor import asking
from edgerecover.doctor.asking import Answer, ask
from edgerecover.doctor.probes import PROBES, TINY_ONNX


def test_the_tiny_file_is_a_sound_classifier_that_the_oldest_reader_takes():
    model = onnx.load_model_from_string(TINY_ONNX)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (7, 13)


def test_a_provider_is_tried_for_real():
    answer = ask("onnxruntime", "CPUExecutionProvider", "NoSuchExecutionProvider")
    assert not answer.error
    assert set(answer.values["failures"]) == {"NoSuchExecutionProvider"}
    assert "ran no node" in answer.values["failures"]["NoSuchExecutionProvider"]


def test_a_module_that_is_not_there():
    answer = ask("module", "no_such_module_anywhere")
    assert answer.is_absent("no_such_module_anywhere")
    assert not answer.is_absent("other")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import os; os.abort()", "the process died of it (status -6)"),
        ("raise OSError('libfoo.so.1: cannot open shared object file')", "OSError: libfoo.so.1: cannot open"),
        ("print('hello'); __version__ = '1.2'", ""),
        ("import sys; sys.stdout.write('{')\n__version__ = '1.2'", ""),
    ],
)
def test_a_module_that_dies_fails_or_talks(tmp_path, monkeypatch, body, expected):
    (tmp_path / "brittle_for_doctor.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    asking.ask.cache_clear()
    answer = ask("module", "brittle_for_doctor")
    assert answer.error.startswith(expected)
    assert bool(answer.error) is bool(expected)
    assert answer.version == ("" if expected else "1.2")


def test_every_probe_that_a_module_has_is_one():
    assert set(asking._OWN_PROBES) <= set(PROBES)


def test_a_library_that_a_present_one_lacks_is_not_its_absence():
    assert not Answer(error="ModuleNotFoundError: No module named 'numpy'").is_absent("onnxruntime")
    assert Answer(error="OpenVINO cannot be imported: No module named 'openvino'").is_absent("openvino")
    assert ask("tensorrt").error == "" or ask("tensorrt").is_absent("tensorrt")
