"""What doctor says of machines that are not here: their descriptions and the probes' answers are made up."""

from dataclasses import replace
from importlib import metadata

import pytest

from edgerecover.artifacts import Gpu, Host
from edgerecover.config import load_target
from edgerecover.doctor import examine as module
from edgerecover.doctor.asking import Answer, systems_copies
from edgerecover.doctor.examine import examine
from edgerecover.doctor.findings import Status
from edgerecover.errors import pip_line

ABSENT = {
    "openvino": Answer(error="OpenVINO cannot be imported: No module named 'openvino'"),
    "MNN": Answer(error="MNN is not installed"),
    "tensorrt_rtx": Answer(error="TensorRT-RTX is not installed"),
    "tensorrt": Answer(error="TensorRT is not installed"),
    "cuda_driver": Answer(error="OSError: libcuda.so.1: cannot open shared object file"),
}
WORKING = {
    "torch": Answer({"version": "2.15.0", "built_for_cuda": "13.2", "gpu": ""}),
    "torchvision": Answer({"version": "2.15.0", "built_for_cuda": "13.2", "gpu": "", "torchvision": "0.29.2"}),
    "onnxruntime": Answer({"version": "1.31.1", "listed": ["CPUExecutionProvider"], "failures": {}}),
}
PC = Host("x86_64", "EPYC", 2, "Linux 6.8", isa=("avx2", "fma", "avx512f", "avx512_vnni"))
GAMING_PC = replace(PC, gpus=(Gpu("NVIDIA GeForce RTX 4090", "8.9", "550.54"),))
ORIN_NANO = Host(
    "aarch64", "Cortex-A78AE", 6, "Linux 5.15-tegra", "NVIDIA Jetson Orin Nano Developer Kit", l4t="36.4.3"
)


@pytest.fixture(autouse=True)
def _this_python(monkeypatch):
    monkeypatch.setattr(module, "this_python", lambda: "3.10")
    monkeypatch.setattr(module, "systems_copies", lambda name: [])


def diagnosis(host=PC, target=None, **answers):
    given = {**ABSENT, **WORKING, **answers}
    return examine(target and load_target(target), host=host, ask=lambda probe, *rest: given[probe])


def finding(diagnosis, name):
    return next(one for one in diagnosis.findings if one.name == name)


def test_all_is_here():
    found = diagnosis()
    assert found.is_ready
    assert found.targets_here == ("onnx-generic", "x86-avx512-vnni", "x86-cpu")
    assert (found.target, found.is_target) == (None, None)
    assert finding(found, "openvino").status is Status.NOTE
    assert finding(found, "openvino").fix == pip_line("install 'edgerecover[openvino]'")


def test_a_missing_pytorch():
    absent = Answer(error="ModuleNotFoundError: No module named 'torch'")
    found = diagnosis(torch=absent, torchvision=absent)
    assert not found.is_ready
    assert finding(found, "torch").status is Status.MISSING
    assert finding(found, "torch").found == "not installed"


def test_a_pytorch_whose_libraries_are_missing():
    broken = Answer(error="OSError: libcudart.so.13: cannot open shared object file")
    found = diagnosis(torch=broken, torchvision=broken)
    assert finding(found, "torch").status is Status.WRONG
    assert "libcudart.so.13" in finding(found, "torch").found


@pytest.mark.parametrize(
    ("torch", "index"),
    [
        ("2.15.0+cpu", " --index-url https://download.pytorch.org/whl/cpu"),
        ("2.15.0+cu130", " --index-url https://download.pytorch.org/whl/cu130"),
        ("2.15.0", ""),
        ("2.15.0+gitabc", ""),
    ],
)
def test_a_torchvision_built_for_another_pytorch(torch, index):
    found = diagnosis(
        torch=Answer({"version": torch, "built_for_cuda": "", "gpu": ""}),
        torchvision=Answer(error="RuntimeError: operator torchvision::nms does not exist"),
    )
    told = finding(found, "torchvision")
    assert told.status is Status.WRONG
    assert f"does not fit torch {torch}" in told.found
    assert "nms" in told.found
    assert told.fix == pip_line(f"install --force-reinstall torch torchvision{index}")


def test_a_driver_older_than_pytorchs_cuda_is_told_and_nothing_fails():
    found = diagnosis(GAMING_PC, cuda_driver=Answer({"version": "12.4"}))
    assert found.is_ready
    assert finding(found, "NVIDIA driver").found == "runs CUDA up to 12.4"
    told = finding(found, "torch on the GPU")
    assert (told.status, told.found) == (
        Status.NOTE,
        "the driver runs CUDA up to 12.4, this PyTorch needs 13.2: update the driver",
    )


def test_a_pytorch_without_cuda_on_a_machine_with_a_gpu():
    without = {"version": "2.15.0+cpu", "built_for_cuda": "", "gpu": "", "torchvision": "0.29.2+cpu"}
    found = diagnosis(GAMING_PC, torchvision=Answer(without))
    assert "has no CUDA" in finding(found, "torch on the GPU").found


def test_no_onnxruntime():
    found = diagnosis(onnxruntime=Answer(error="onnxruntime cannot be imported: No module named 'onnxruntime'"))
    assert finding(found, "onnxruntime").status is Status.MISSING
    assert finding(found, "onnxruntime").fix.startswith(pip_line("install 'onnxruntime"))


def test_an_onnxruntime_that_lacks_what_it_needs_is_not_called_missing():
    found = diagnosis(onnxruntime=Answer(error="onnxruntime cannot be imported: No module named 'numpy'"))
    assert finding(found, "onnxruntime").status is Status.WRONG


LISTS_CUDA = Answer(
    {
        "version": "1.31.1",
        "listed": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "failures": {"CUDAExecutionProvider": "CUDAExecutionProvider was requested but ran no node"},
    }
)


def test_a_provider_that_is_listed_and_does_not_run():
    found = diagnosis(onnxruntime=LISTS_CUDA)
    assert finding(found, "onnxruntime").found == "1.31.1, really ran on CPUExecutionProvider"
    assert "ran no node" in finding(found, "CUDAExecutionProvider").found
    assert found.is_ready


def test_a_target_whose_own_provider_does_not_run_here(tmp_path):
    path = tmp_path / "cuda-pc.toml"
    path.write_text(
        'extends = "x86-cpu"\nname = "cuda-pc"\ndescription = "ours"\n'
        '[providers]\nvalue = ["CUDAExecutionProvider"]\nsource = "choice: ours"\n'
    )
    found = diagnosis(target=str(path), onnxruntime=LISTS_CUDA)
    assert not found.is_ready
    told = [one for one in found.findings if one.name == "CUDAExecutionProvider"]
    assert told[-1].status is Status.WRONG
    assert told[-1].fix == pip_line("install 'onnxruntime>=1.22'")


def test_two_onnxruntimes_in_one_folder(monkeypatch):
    versions = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"}

    def version(name):
        if name.startswith("onnxruntime") and name not in versions:
            raise metadata.PackageNotFoundError
        return versions.get(name, "1.0")

    monkeypatch.setattr(module.metadata, "version", version)
    monkeypatch.setattr(module.metadata, "requires", lambda name: [])
    told = finding(diagnosis(), "onnxruntime")
    assert told.status is Status.WRONG
    assert told.fix == " && ".join(
        map(pip_line, ("uninstall -y onnxruntime onnxruntime-gpu", "install onnxruntime-gpu"))
    )


def test_own_requirements_are_compared(monkeypatch):
    versions = {"onnx": "1.10.0", "numpy": "2.1.0"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    lines = ["onnx>=1.18,<2", "numpy>=1.26,<3", "rich>=13", "timm>=1; extra == 'timm'", "tomli>=2; python_version<'3'"]
    monkeypatch.setattr(module.metadata, "version", version)
    monkeypatch.setattr(module.metadata, "requires", lambda name: lines)
    found = {one.name: one for one in module._requirements()}
    assert set(found) == {"onnx", "rich"}
    assert (found["onnx"].status, found["rich"].status) == (Status.WRONG, Status.MISSING)
    assert found["onnx"].fix == pip_line("install 'onnx<2,>=1.18'")


def test_a_full_disk(monkeypatch):
    usage = module.shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    assert finding(diagnosis(), "disk").status is Status.WRONG


# --- a target, from a host ----------------------------------------------------------------------------------


def test_a_host_is_told_what_it_can_do_for_a_jetson():
    found = diagnosis(target="jetson-orin-nano")
    assert found.is_ready
    assert found.is_target is False
    assert "x86_64, not aarch64" in finding(found, "target").found
    assert "TensorRT-RTX's parser" in finding(found, "target").found
    assert finding(found, "tensorrt_rtx (optional)").status is Status.NOTE
    there = [(one.found, one.fix) for one in found.findings if one.name == "on the device"]
    assert there == [
        ("needs python3-libnvinfer >=10.3,<11", "sudo apt-get install python3-libnvinfer"),
        (
            "can use onnxruntime-gpu >=1.20",
            "pip install onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/jp6/cu126",
        ),
    ]


def test_an_engine_cannot_be_built_without_its_library():
    found = diagnosis(target="rtx-40")
    assert not found.is_ready
    told = finding(found, "tensorrt_rtx")
    assert (told.status, told.found) == (Status.MISSING, "not installed (>=1.4 is needed)")
    assert told.fix == pip_line("install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")


def test_a_version_that_does_not_fit():
    told = finding(diagnosis(target="rtx-40", tensorrt_rtx=Answer({"version": "1.0.0.21"})), "tensorrt_rtx")
    assert (told.status, told.found) == (Status.WRONG, "1.0.0.21 is here, >=1.4 is needed")


def test_a_board_that_the_runner_does_not_run_on():
    found = diagnosis(target="jetson-nano")
    assert "Python 3.6" in finding(found, "runner").found


# --- a target, on the device --------------------------------------------------------------------------------

TENSORRT_10_3 = Answer({"version": "10.3.0", "dla_cores": 0})


def test_a_jetson_with_all_it_needs():
    found = diagnosis(ORIN_NANO, "jetson-orin-nano", tensorrt=TENSORRT_10_3)
    assert found.is_ready
    assert found.is_target
    assert finding(found, "tensorrt").status is Status.OK
    assert "on the device" not in {one.name for one in found.findings}


def test_the_wrong_jetpack_names_the_right_target():
    host = replace(ORIN_NANO, l4t="39.2.0")
    told = finding(diagnosis(host, "jetson-orin-nano"), "target")
    assert "it runs Jetson Linux 39.2.0, not 36.x" in told.found
    assert told.fix == "edgerecover doctor --target jetson-orin-nano-jp7"


def test_a_tensorrt_of_another_jetpack():
    found = diagnosis(ORIN_NANO, "jetson-orin-nano", tensorrt=Answer({"version": "8.6.2", "dla_cores": 0}))
    assert not found.is_ready
    assert finding(found, "tensorrt").found == "8.6.2 is here, >=10.3,<11 is needed"


def test_a_tensorrt_that_does_not_load():
    reason = "the system's own does not load (libnvdla_compiler.so: cannot open shared object file)"
    broken = Answer(error=f"TensorRT is not installed: {reason}")
    told = finding(diagnosis(ORIN_NANO, "jetson-orin-nano", tensorrt=broken), "tensorrt")
    assert told.status is Status.WRONG
    assert "libnvdla_compiler.so" in told.found


def test_a_tensorrt_of_the_system_for_another_python(monkeypatch, tmp_path):
    (tmp_path / "usr/lib/python3.12/dist-packages/tensorrt").mkdir(parents=True)
    monkeypatch.setattr(module, "systems_copies", lambda name: systems_copies(name, tmp_path))
    told = finding(diagnosis(ORIN_NANO, "jetson-orin-nano"), "tensorrt")
    assert told.status is Status.MISSING
    assert "is for Python 3.12, and this is 3.10" in told.found
    assert told.fix == "python3.12 -m venv --system-site-packages edgerecover-venv"


def test_a_python_that_the_systems_bindings_are_not_for(monkeypatch):
    monkeypatch.setattr(module, "this_python", lambda: "3.12")
    found = diagnosis(ORIN_NANO, "jetson-orin-nano", tensorrt=TENSORRT_10_3)
    told = [one for one in found.findings if one.name == "python"][-1]
    assert told.status is Status.WRONG
    assert "==3.10.*" in told.found


def test_accelerators_that_the_target_does_not_count_on():
    host = replace(ORIN_NANO, board="NVIDIA Jetson Orin NX Engineering Reference Developer Kit")
    found = diagnosis(host, "jetson-orin-nx", tensorrt=Answer({"version": "10.3.0", "dla_cores": 2}))
    assert finding(found, "DLA cores").found == "TensorRT sees 2 here, the target counts on 1"


@pytest.mark.parametrize(("devices", "is_ready"), [(["CPU"], False), (["CPU", "GPU.0"], True), (["CPU", "GPU"], True)])
def test_an_intel_gpu_that_openvino_must_see(devices, is_ready):
    host = replace(PC, gpus=(Gpu("Intel GPU 0x46a6"),))
    openvino = Answer({"version": "2026.4.1", "devices": devices})
    assert diagnosis(host, "intel-igpu", openvino=openvino).is_ready is is_ready
