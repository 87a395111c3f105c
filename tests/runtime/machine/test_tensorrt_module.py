import sys
from pathlib import Path

import pytest

from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.machine import tensorrt_module
from edgerecover.runtime.machine.tensorrt_module import Log, import_tensorrt, install_line, one_line


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system folder that is empty, and nothing importable."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(tensorrt_module, "system_folders", lambda: (tmp_path,))
    monkeypatch.setattr(sys, "path", [])
    return tmp_path


@pytest.mark.parametrize(
    ("runtime", "line"), [("tensorrt", "edgerecover[tensorrt]"), ("tensorrt-rtx", "edgerecover[tensorrt-rtx]")]
)
def test_what_is_not_installed_gives_its_install_line(
    no_tensorrt: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, line: str
) -> None:
    monkeypatch.setattr(tensorrt_module.platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingError, match="is not installed") as caught:
        import_tensorrt(runtime)
    assert caught.value.exit_code == 3
    assert line in caught.value.hint


def test_on_a_jetson_the_line_is_apts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module.platform, "machine", lambda: "aarch64")
    assert "apt install python3-libnvinfer" in install_line("tensorrt")


def test_the_systems_own_is_found_from_inside_a_virtual_environment(no_tensorrt: Path) -> None:
    """And nothing else that lies in the system's folder is."""
    package = no_tensorrt / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("from .part import VALUE\n__version__ = '10.3.0'\n")
    (package / "part.py").write_text("VALUE = 1\n")
    (no_tensorrt / "neighbour_of_tensorrt.py").write_text("")
    module = import_tensorrt("tensorrt")
    try:
        assert (tensorrt_module.version_of(module), tensorrt_module.major(module), module.VALUE) == ("10.3.0", 10, 1)
        with pytest.raises(ModuleNotFoundError):
            __import__("neighbour_of_tensorrt")
    finally:
        tensorrt_module._forget("tensorrt")


def test_bindings_for_another_python_are_named_and_leave_nothing_behind(no_tensorrt: Path) -> None:
    package = no_tensorrt / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('compiled for Python 3.10, but this is 3.12')\n")
    with pytest.raises(MissingError, match=r"system's own at .* does not load \(compiled for Python 3\.10"):
        import_tensorrt("tensorrt")
    assert "tensorrt" not in sys.modules


def test_an_unknown_runtime_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="unknown engine runtime 'onnxruntime'"):
        import_tensorrt("onnxruntime")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "ITensor::getDimensions: Error Code 4: API Usage Error (b: input has type Int32. In checkType at "
            "/_src/optimizer/common/nodeBase.cpp:456)\n"
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime",
            "b: input has type Int32.",
        ),
        ('Assertion failed: creator && "Plugin not found"', "Plugin not found"),
        ("first line\n  second\x07 line", "first line second? line"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_messages_are_shown_as_one_line_without_source_lines(said: str, shown: str) -> None:
    assert one_line(said) == shown


def test_a_log_keeps_each_message_once() -> None:
    log = Log()
    for severity, text in [("ERROR", "a"), ("WARNING", "w"), ("ERROR", "a"), ("INTERNAL_ERROR", "b")]:
        log.add(severity, text)
    assert log.errors == ("a", "b")
    assert log.texts("WARNING") == ("w",)


def test_a_talkative_library_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "_MAX_MESSAGES", 3)
    log = Log()
    for number in range(10):
        log.add("VERBOSE", str(number))
    assert len(log.messages) == 3
