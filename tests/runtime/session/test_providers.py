import pytest

from edgerecover.errors import pip_line
from edgerecover.runtime.session import onnxruntime as session_module
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.runtime.session.providers import PACKAGES, QNN, how_to_get, options_of


@pytest.mark.parametrize("provider", PACKAGES)
def test_every_provider_names_what_to_install(provider):
    assert how_to_get(provider).startswith(pip_line("install onnxruntime"))
    where = "beside" if provider == QNN else "instead of"
    assert f"{where} onnxruntime" in how_to_get(provider)
    assert "or name another" in how_to_get("NoSuchExecutionProvider")


def test_what_a_provider_is_told():
    assert options_of(CPU, 4) == {}
    assert options_of("OpenVINOExecutionProvider", 4) == {"num_of_threads": "4"}
    assert options_of("OpenVINOExecutionProvider", None) == {}
    assert options_of("QNNExecutionProvider", None) == {"backend_type": "htp"}


def test_open_sizes_are_fixed_for_a_provider_that_takes_none(write_onnx, tmp_path, monkeypatch):
    """Shown on the CPU, which takes both: no QNN or CoreML is at hand."""
    monkeypatch.setattr(session_module, "STATIC_ONLY", frozenset({CPU}))
    path = write_onnx(tmp_path / "net.onnx", sides=("height", "width"))
    assert open_session(path, [CPU], num_threads=1, shape_CHW=(3, 8, 8), batch=4).batch == 4
    assert open_session(path, [CPU], num_threads=1, shape_CHW=(3, 8, 8)).batch == 1
