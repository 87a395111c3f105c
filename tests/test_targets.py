"""The shipped targets: facts with sources, machines told apart. And the reference pages on TOML files."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgerecover.artifacts import Gpu, Host, Precision
from edgerecover.artifacts.machine import ISA
from edgerecover.config import (
    CardFile,
    Fact,
    ModelFile,
    ModelFileInput,
    Package,
    Target,
    load_target,
    parse,
    read_toml,
    shipped_names,
)
from edgerecover.config.model_file import OutputTable
from edgerecover.errors import BadInputError
from edgerecover.runtime.machine.host import is_target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TARGETS = [
    "android-cpu",
    "android-qnn",
    "apple-coreml",
    "intel-igpu",
    "jetson-nano",
    "jetson-orin",
    "jetson-orin-agx",
    "jetson-orin-agx-jp7",
    "jetson-orin-nano",
    "jetson-orin-nano-jp7",
    "jetson-orin-nx",
    "jetson-orin-nx-jp7",
    "jetson-thor",
    "jetson-xavier",
    "onnx-generic",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "rtx-30",
    "rtx-40",
    "rtx-50",
    "x86-avx2",
    "x86-avx512-vnni",
    "x86-cpu",
]
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reference"


def arm_board(board, l4t="", isa=("asimd",)):
    return Host("aarch64", "", 4, "Linux 6.8", board, isa=isa, l4t=l4t)


def pc(*isa, gpus=()):
    return Host("x86_64", "", 8, "Linux 6.8", isa=isa, gpus=gpus)


ORIN_NANO, ORIN_NX, AGX_ORIN = (
    "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
    "NVIDIA Jetson AGX Orin Developer Kit",
)
PI_5_ISA = ("asimd", "asimdhp", "asimddp")
MACHINES = {
    "Orin Nano, JetPack 6": (arm_board(ORIN_NANO, "36.4.3"), {"jetson-orin", "jetson-orin-nano"}),
    "Orin NX, JetPack 6": (arm_board(ORIN_NX, "36.4.3"), {"jetson-orin", "jetson-orin-nx"}),
    "AGX Orin, JetPack 6": (arm_board(AGX_ORIN, "36.4.3"), {"jetson-orin", "jetson-orin-agx"}),
    "Orin Nano, JetPack 7": (arm_board(ORIN_NANO, "39.2.0"), {"jetson-orin-nano-jp7"}),
    "Orin NX, JetPack 7": (arm_board(ORIN_NX, "39.2.0"), {"jetson-orin-nx-jp7"}),
    "AGX Orin, JetPack 7": (arm_board(AGX_ORIN, "39.2.0"), {"jetson-orin-agx-jp7"}),
    "AGX Orin, JetPack 5": (arm_board(AGX_ORIN, "35.6.0"), set()),
    "Thor": (arm_board("NVIDIA Jetson AGX Thor Developer Kit", "39.2.0"), {"jetson-thor"}),
    "Xavier NX": (arm_board("NVIDIA Jetson Xavier NX Developer Kit", "35.6.0"), {"jetson-xavier"}),
    "AGX Xavier": (arm_board("NVIDIA Jetson AGX Xavier Developer Kit", "35.6.0"), {"jetson-xavier"}),
    "Nano": (arm_board("NVIDIA Jetson Nano Developer Kit", "32.7.1"), {"jetson-nano"}),
    "Pi 5": (arm_board("Raspberry Pi 5 Model B Rev 1.0", isa=PI_5_ISA), {"raspberry-pi-5"}),
    "Pi 4": (arm_board("Raspberry Pi 4 Model B Rev 1.5"), {"raspberry-pi-4"}),
    "Pi 500": (arm_board("Raspberry Pi 500 Rev 1.0", isa=PI_5_ISA), set()),
    "Mac": (Host("arm64", "Apple M2", 8, "Darwin 24.1", isa=PI_5_ISA), {"apple-coreml"}),
    "phone": (Host("aarch64", "", 8, "Android 6.1", isa=PI_5_ISA), {"android-cpu", "android-qnn"}),
    "old PC": (pc(), {"x86-cpu"}),
    "PC with AVX2": (pc("avx2", "fma", "f16c"), {"x86-cpu", "x86-avx2"}),
    "PC with AVX-512 but no VNNI": (pc("avx2", "fma", "avx512f"), {"x86-cpu", "x86-avx2"}),
    "PC with AVX-VNNI": (pc("avx2", "fma", "avx_vnni"), {"x86-cpu"}),
    "PC with VNNI": (pc("avx2", "fma", "avx512f", "avx512_vnni"), {"x86-cpu", "x86-avx512-vnni"}),
    "PC with an RTX 3060": (pc(gpus=(Gpu("NVIDIA GeForce RTX 3060", "8.6"),)), {"x86-cpu", "rtx-30"}),
    "PC with an RTX 4090": (pc(gpus=(Gpu("NVIDIA GeForce RTX 4090", "8.9"),)), {"x86-cpu", "rtx-40"}),
    "PC with an RTX 5090": (pc(gpus=(Gpu("NVIDIA GeForce RTX 5090", "12.0"),)), {"x86-cpu", "rtx-50"}),
    "PC with an H100": (pc(gpus=(Gpu("NVIDIA H100", "9.0"),)), {"x86-cpu"}),
    "laptop with Intel's GPU": (pc(gpus=(Gpu("Intel GPU 0x46a6"),)), {"x86-cpu", "intel-igpu"}),
}


def facts_of(target):
    return {key: fact for key in type(target).model_fields if isinstance(fact := getattr(target, key), Fact)}


def test_the_shipped_targets_are_these():
    assert shipped_names("targets") == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_shipped_target_loads_under_its_file_name(name):
    target = load_target(name)
    assert target.name == name
    assert target.family


@pytest.mark.parametrize("name", TARGETS)
def test_every_source_is_a_document_a_measurement_a_choice_or_said_to_be_unconfirmed(name):
    target = load_target(name)
    sources = {key: fact.source for key, fact in facts_of(target).items()}
    sources |= {f"packages, {package.name}": package.source for package in target.packages}
    assert sources
    for key, source in sources.items():
        known_from = re.search(
            r"https://|^choice: .{20,}|/proc/device-tree|platform\.machine\(\)|measured:|not confirmed", source
        )
        assert known_from, f"{key}: {source}"


@pytest.mark.parametrize(("host", "expected"), MACHINES.values(), ids=MACHINES)
def test_a_machine_is_told_from_all_others(host, expected):
    found = {name for name in TARGETS if is_target(load_target(name).needs, host)}
    assert found == expected | {"onnx-generic"}


@pytest.mark.parametrize("family", ["jetson-orin"])
def test_a_family_promises_no_more_than_its_smallest_member(family):
    members = [load_target(name) for name in TARGETS if name.startswith(f"{family}-") and not name.endswith("-jp7")]
    family = load_target(family)
    for least in ("memory_gib", "max_memory_mb", "max_file_mb", "dla_cores", "workspace_mb"):
        assert getattr(family, least).value == min(getattr(member, least).value for member in members)
    for same in ("opset", "precisions", "sparse", "compute_capability", "stack", "l4t", "python"):
        assert {getattr(member, same).value for member in members} == {getattr(family, same).value}


@pytest.mark.parametrize("name", [name for name in TARGETS if load_target(name).max_memory_mb])
def test_memory_limit_is_at_most_a_quarter_of_the_memory(name):
    target = load_target(name)
    assert target.max_memory_mb.value * 1e6 <= target.memory_gib.value * 2**30 / 4
    assert target.max_file_mb.value <= target.max_memory_mb.value / 4
    assert target.workspace_mb is None or target.workspace_mb.value <= 0.52 * target.max_memory_mb.value


def test_the_generic_target_is_every_machine_and_sets_no_limit():
    target = load_target("onnx-generic")
    assert target.machine.value == "any"
    assert (target.max_p99_ms, target.max_file_mb, target.max_memory_mb) == (None, None, None)


@pytest.mark.parametrize("name", TARGETS)
def test_int8_is_quantised_as_the_target_can_compute_it(name):
    target = load_target(name)
    assert target.precisions.value[0] is Precision.FP32
    if target.runtime.value.startswith("tensorrt") and Precision.INT8 in target.precisions.value:
        assert target.int8_scheme.value == "tensorrt"
    if target.isa and "avx512_vnni" in target.isa.value:
        assert target.int8_scheme.value == "u8s8"
    elif target.runtime.value == "onnxruntime" and target.machine.value == "x86_64":
        assert target.int8_scheme.value == "u8s7"


def test_what_users_of_old_boards_run_into_is_in_the_facts():
    nano, pi_4 = load_target("jetson-nano"), load_target("raspberry-pi-4")
    assert (nano.opset.value, nano.ir_version.value, nano.runner.value) == (13, 7, False)
    assert Precision.INT8 not in nano.precisions.value
    assert pi_4.precisions.value == (Precision.FP32,)
    assert not pi_4.needs.isa
    orin = next(package for package in load_target("jetson-orin-nx").packages if package.name == "onnxruntime-gpu")
    assert "jp6/cu126" in orin.install


@pytest.mark.parametrize("name", TARGETS)
def test_every_package_names_a_command_that_fits_it(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package in load_target(name).packages:
        assert "\n" not in package.install
        if pip := re.match(r"pip install (.*?)(?: --index-url \S+)?$", package.install):
            for written in pip[1].split():
                wanted = Requirement(written.strip("'"))
                assert wanted.name in (package.name, "edgerecover") or wanted.name.startswith("tensorrt-rtx")
                assert wanted.extras <= set(extras)
        elif "apt-get" in package.install:
            assert package.install == f"sudo apt-get install {package.name}"


# --- a target of one's own ---------------------------------------------------------------------------


def own(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_ones_own_target_changes_a_shipped_one(tmp_path):
    text = 'extends = "raspberry-pi-5"\nname = "own"\ndescription = "ours"\n'
    target = load_target(own(tmp_path, f'{text}[max_p99_ms]\nvalue = 10\nsource = "product: 100 frames"\n'))
    shipped = load_target("raspberry-pi-5")
    assert (target.name, target.max_p99_ms.value) == ("own", 10)
    assert target.int8_scheme == shipped.int8_scheme
    assert target.packages == shipped.packages


def test_a_fact_is_replaced_with_its_source(tmp_path):
    text = 'extends = "raspberry-pi-5"\nname = "own"\ndescription = "ours"\n[max_p99_ms]\nvalue = 10\n'
    with pytest.raises(BadInputError, match=r"own\.toml:4: key 'max_p99_ms\.source' is missing"):
        load_target(own(tmp_path, text))


def test_targets_that_extend_each_other(tmp_path):
    with pytest.raises(BadInputError, match="extend each other in a cycle"):
        load_target(own(tmp_path, f'extends = {str(tmp_path / "own.toml")!r}\nname = "own"\n'))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('[isa]\nvalue = ["avx513"]\nsource = "a document"', "'avx513' is not one of the instruction sets avx, avx2"),
        ('[python]\nvalue = "3.10"\nsource = "a document"', "'3.10' is not a version specifier"),
        ('[int8_scheme]\nvalue = "u8u8"\nsource = "a document"', "int8_scheme"),
        ('[precisions]\nvalue = ["tf32"]\nsource = "a document"', "precisions"),
        ('[[packages]]\nname = "x"\nmodule = "x"\non = "host"\nversion = "1"\ninstall = "x"', "source' is missing"),
    ],
)
def test_a_wrong_fact_is_named(tmp_path, table, complaint):
    with pytest.raises(BadInputError) as caught:
        load_target(own(tmp_path, f'extends = "x86-cpu"\nname = "own"\ndescription = "ours"\n{table}\n'))
    assert complaint in caught.value.message


def test_int8_without_a_scheme_is_refused(tmp_path):
    text = 'extends = "onnx-generic"\nname = "own"\ndescription = "ours"\n'
    with pytest.raises(BadInputError, match="int8_scheme must say how"):
        load_target(own(tmp_path, f'{text}[precisions]\nvalue = ["fp32", "int8"]\nsource = "a document"\n'))


def test_mnn_is_given_float32_alone(tmp_path):
    text = 'extends = "raspberry-pi-5"\nname = "own"\ndescription = "ours"\n'
    with pytest.raises(BadInputError, match="fp32 alone where runtime is mnn"):
        load_target(own(tmp_path, f'{text}[runtime]\nvalue = "mnn"\nsource = "a document"\n'))


def test_a_board_tells_its_gpu():
    orin, rtx = load_target("jetson-orin").needs, load_target("rtx-40").needs
    assert (orin.compute_capability, rtx.compute_capability) == (None, "8.9")


def test_a_machine_without_jetson_linux_release_is_told_by_its_board():
    container = replace(MACHINES["Orin Nano, JetPack 7"][0], l4t="")
    assert is_target(load_target("jetson-orin-nano").needs, container)
    assert is_target(load_target("jetson-orin-nano-jp7").needs, container)


# --- the reference pages ---------------------------------------------------------------------------


def toml_blocks(page):
    return re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def documented_keys(page):
    return set(re.findall(r"^\| `([a-zA-Z0-9_.]+)` \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE))


def test_the_page_on_targets_describes_every_key():
    packages = {f"packages.{key}" for key in Package.model_fields}
    assert documented_keys("targets.md") == {*Target.model_fields, *packages, "extends"}


def test_the_page_on_targets_names_every_instruction_set():
    page = (DOCS / "targets.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in ISA)


def test_the_example_of_ones_own_target_loads(tmp_path):
    target = load_target(own(tmp_path, toml_blocks("targets.md")[-1]))
    assert target.max_p99_ms.value == 66.6
    assert target.python.value == ">=3.11"


def test_the_table_of_shipped_targets_is_complete():
    page = (DOCS / "targets.md").read_text(encoding="utf-8")
    for target in map(load_target, TARGETS):
        limits = [(target.max_p99_ms, "ms"), (target.max_memory_mb, "MB"), (target.max_file_mb, "MB")]
        cells = [target.runtime.value, ", ".join(target.precisions.value), str(target.opset.value)]
        cells += [f"{limit.value:g} {unit}" if limit else "–" for limit, unit in limits]
        row = re.search(rf"^\| `{target.name}` \| .*$", page, re.MULTILINE)[0]
        assert row.endswith(f"| {' | '.join(cells)} |")


def test_the_page_on_model_toml_describes_every_key():
    expected = set(ModelFile.model_fields) - {"input", "card", "outputs"}
    for table, schema in (("input", ModelFileInput), ("card", CardFile), ("outputs.NAME", OutputTable)):
        expected |= {f"{table}.{key}" for key in schema.model_fields}
    assert documented_keys("model-toml.md") == expected


def test_the_example_of_a_model_toml_loads(tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(toml_blocks("model-toml.md")[0], encoding="utf-8")
    assert parse(ModelFile, read_toml(path), path).teacher == "dense.pt"
