"""Which runs a sweep is, what makes two of them the same, and that a stranger's plan is data and nothing else."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from edgerecover.artifacts import TaskKind
from edgerecover.config import load_profile, load_target
from edgerecover.demo import demo_files
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.stages.request import Request
from edgerecover.sweep.plan import points_of, read_plan, write_plan

ARCHITECTURE = "edgerecover.demo.network:digits_net"


@pytest.fixture
def base(tmp_path):
    torch.save(load_file(demo_files().dense), tmp_path / "dense.pt")
    return Request(
        flags=ModelFlags(arch=ARCHITECTURE),
        model_path=tmp_path / "dense.pt",
        target=load_target("onnx-generic"),
        profile=load_profile("smoke"),
        out=tmp_path / "sweep",
        work=tmp_path / "work",
    )


def planned(base, patterns=(), sparsities=(), profiles=("smoke",)):
    return points_of(base, patterns, sparsities, [load_profile(name) for name in profiles], base.out)


def test_all_combinations_each_once(base):
    points = planned(base, ["unstructured", "2:4", "channel"], [0.5, 0.875])
    assert [one.point.name for one in points] == [
        "unstructured-50", "unstructured-87.5", "2-4", "channel-50", "channel-87.5",
    ]  # fmt: skip
    assert points[2].request.pruning.sparsity == 0.5
    assert len({one.request.out for one in points}) == len({one.request.work for one in points}) == 5


def test_sparsities_alone_are_unstructured_and_profiles_alone_take_the_model_as_it_is(base):
    assert [one.point.pattern for one in planned(base, (), [0.5])] == ["unstructured"]
    (one,) = planned(base)
    assert one.request.pruning is None
    assert one.point.name == "smoke"


def test_all_profiles_learn_from_the_images_of_the_first(base):
    smoke, demo = planned(base, (), [0.5], ("smoke", "demo"))
    assert smoke.request.profile.synthesis == demo.request.profile.synthesis
    assert demo.request.profile.recovery == load_profile("demo").recovery
    assert (smoke.point.profile, demo.point.profile) == ("smoke", "demo-on-smoke")


def test_what_is_refused(base):
    with pytest.raises(BadInputError, match="at most 32"):
        planned(base, ["unstructured", "layerwise"], [n / 100 for n in range(10, 60)])
    with pytest.raises(BadInputError, match="same name"):
        planned(base, (), [0.5], ("smoke", "smoke"))
    with pytest.raises(BadInputError, match="needs --sparsity"):
        planned(base, ["channel"])
    with pytest.raises(BadInputError, match="not between"):
        planned(base, (), [1.5])


def test_the_key_follows_everything_that_decides(base):
    def key(base):
        return planned(base, (), [0.5])[0].key

    first = key(base)
    assert key(base) == first
    profile = base.profile.model_copy(update={"recovery": base.profile.recovery.model_copy(update={"lr": 0.123})})
    assert points_of(base, (), [0.5], [profile], base.out)[0].key != first
    assert key(replace(base, seed=1)) != first
    assert key(replace(base, flags=replace(base.flags, task=TaskKind.EMBEDDING))) != first
    assert key(replace(base, target=load_target("jetson-orin"))) != first
    content = base.model_path.read_bytes()
    base.model_path.write_bytes(content + b"\0")
    assert key(base) != first
    base.model_path.write_bytes(content)
    (base.model_path.parent / "model.toml").write_text("[input]\nshape = [1, 8, 8]\n")
    assert key(base) != first


def test_a_plan_is_read_back(base):
    points = planned(base, (), [0.5, 0.75])
    plan = write_plan(base.out, points)
    assert read_plan(base.out) == plan
    assert write_plan(base.out, points) == plan


def test_a_folder_that_is_no_sweep_is_left_alone(base):
    base.out.mkdir()
    (base.out / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInputError, match="not a sweep"):
        write_plan(base.out, planned(base, (), [0.5]))
    assert [path.name for path in base.out.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"points": []},
        {"keys": ["../../etc"]},
        {"points": [{"name": "../../etc", "pattern": None, "sparsity": None, "profile": "a"}]},
        {"points": [{"name": "/etc", "pattern": None, "sparsity": None, "profile": "a"}]},
        {"points": [{"name": "a", "pattern": None, "sparsity": None, "profile": "a\x1b[2J"}]},
        {"points": [{"name": "a", "pattern": None, "sparsity": "much", "profile": "a"}]},
        {"more": 1},
    ],
)
def test_a_strangers_plan_is_checked(base, change):
    write_plan(base.out, planned(base, (), [0.5]))
    path = base.out / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadInputError, match="cannot be used"):
        read_plan(base.out)


def test_rubbish_is_no_plan(base):
    with pytest.raises(BadInputError, match="cannot be used"):
        read_plan(base.out)
    base.out.mkdir()
    (base.out / "plan.json").write_text("[" * 100_000)
    with pytest.raises(BadInputError, match="cannot be used"):
        read_plan(base.out)
