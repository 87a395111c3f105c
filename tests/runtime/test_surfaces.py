"""Which runtime runs a model on this machine."""

import dataclasses

import pytest

from edgerecover.artifacts import Gpu, Host, Int8Sums
from edgerecover.artifacts.machine import ANY_MACHINE, Deployment, TargetMachine
from edgerecover.config import load_target
from edgerecover.runtime.session.providers import CPU
from edgerecover.runtime.surfaces import (
    device_surfaces_of,
    file_surface_of,
    int8_sums_of,
    surface_of,
    surface_on,
    surfaces_of,
)

HOST = Host("x86_64", "EPYC", 2, "Linux")


@pytest.mark.parametrize("name", ["jetson-orin-nano", "rtx-40", "android-qnn"])
def test_elsewhere_the_host_s_cpu_stands_in(name):
    (surface,) = surfaces_of(load_target(name).deployment)
    assert (surface.runtime, surface.providers) == ("onnxruntime", ("CPUExecutionProvider",))


HASWELL, ZEN_4 = ("sse4_1", "avx2", "fma"), ("avx2", "fma", "avx512f", "avx512_vnni")


@pytest.mark.parametrize(
    ("name", "isa", "sums"),
    [
        ("jetson-orin-nano", HASWELL, Int8Sums.EXACT),
        ("raspberry-pi-5", HASWELL, Int8Sums.EXACT),
        ("x86-avx512-vnni", HASWELL, Int8Sums.EXACT),
        ("rtx-40", HASWELL, Int8Sums.EXACT),  # though it is this machine: its CPU is not what the target computes on
        ("x86-avx2", ZEN_4, Int8Sums.EXACT),
        ("x86-avx2", HASWELL, Int8Sums.HOST),
        ("x86-avx512-vnni", ZEN_4, Int8Sums.HOST),
        ("x86-cpu", HASWELL, Int8Sums.HOST),
    ],
)
def test_int8_is_judged_as_the_host_adds_up_only_where_it_is_the_target(name, isa, sums, monkeypatch):
    gpu = Gpu("NVIDIA GeForce RTX 4060", compute_capability="8.9")
    host = dataclasses.replace(HOST, isa=isa, gpus=(gpu,))
    monkeypatch.setattr("edgerecover.runtime.machine.host.this_host", lambda: host)
    target = load_target(name)
    assert int8_sums_of(target.deployment) is sums
    assert {surface.int8_sums for surface in surfaces_of(target.deployment)} == {sums}


def test_x86_has_three_runtimes_and_a_raspberry_pi_two():
    names = {name: [one.runtime for one in surfaces_of(load_target(name).deployment)]
             for name in ("x86-avx2", "raspberry-pi-4")}  # fmt: skip
    assert names == {"x86-avx2": ["onnxruntime", "openvino", "mnn"], "raspberry-pi-4": ["onnxruntime", "mnn"]}


GPU = Deployment(ANY_MACHINE, "openvino", ("GPU", "CPU"))
ENGINE = Deployment(ANY_MACHINE, "tensorrt", ("TensorrtExecutionProvider",), also_runtimes=("onnxruntime",))
ELSEWHERE = TargetMachine(board="a board that is nowhere")


def asked(surface):
    return surface.runtime, surface.providers


def test_what_mnn_runs_is_judged_by_what_onnxruntime_makes_of_the_file():
    elsewhere = load_target("android-cpu").deployment
    here = dataclasses.replace(elsewhere, machine=ANY_MACHINE, also_runtimes=("mnn",))
    for deployment in (elsewhere, here):
        assert [asked(one) for one in surfaces_of(deployment)] == [("onnxruntime", (CPU,)), ("mnn", (CPU,))]
    assert asked(surface_of(here)) == asked(device_surfaces_of(here)[0]) == ("mnn", ("CPU",))


def test_on_the_target_a_model_runs_in_its_own_runtime():
    assert asked(surface_of(GPU)) == asked(file_surface_of(GPU)) == ("openvino", ("GPU", "CPU"))
    assert asked(surface_of(ENGINE)) == ("tensorrt", ("TensorrtExecutionProvider",))
    assert asked(file_surface_of(ENGINE)) == ("onnxruntime", (CPU,)), "no engine is built for a file alone"


def test_elsewhere_it_runs_in_onnxruntime_on_the_cpu():
    for deployment in (GPU, ENGINE):
        there = dataclasses.replace(deployment, machine=ELSEWHERE)
        found = {asked(surface) for surface in (surface_of(there), file_surface_of(there), *device_surfaces_of(there))}
        assert found == {("onnxruntime", (CPU,))}


def test_a_runtime_of_the_user_s_choice_takes_the_target_s_providers_if_it_is_the_target_s():
    assert asked(surface_on("openvino", GPU)) == ("openvino", ("GPU", "CPU"))
    assert asked(surface_on("onnxruntime", GPU)) == asked(surface_on("onnxruntime")) == ("onnxruntime", (CPU,))
    assert asked(surface_on("openvino", dataclasses.replace(GPU, machine=ELSEWHERE))) == ("openvino", (CPU,))
    assert [asked(surface) for surface in device_surfaces_of(GPU, "onnxruntime")] == [("onnxruntime", (CPU,))]


def test_the_device_races_every_runtime_of_its_target_and_the_desk_all_but_engines():
    assert [surface.runtime for surface in device_surfaces_of(ENGINE)] == ["tensorrt", "onnxruntime"]
    assert [surface.runtime for surface in surfaces_of(ENGINE)] == ["onnxruntime"]
