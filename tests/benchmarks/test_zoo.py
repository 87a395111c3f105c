import json
import os
import signal
import sys
import time

import pytest
import zoo
from zoo import Bounds, Candidate, candidates, choose, kind_of, main, read_rows, table, try_all
from zoo_network import FAILED, OVER, REFUSED, THROUGH, Row

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked"),
    # The toys below use no thread of the parent.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]
LOOSE = Bounds(60, 1e12)


def candidate(name, family="f", millions=1):
    return Candidate(name, family, millions * 1_000_000)


def work(name, family, folder):
    """Stands for `run_network`: its name says what it does."""
    if name == "raises":
        raise RuntimeError("nobody foresaw it")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        time.sleep(60)
    if name == "eats":
        eaten = []
        for _ in range(60):  # 3 GB, if nothing ends it: a process that was forked has less resident than its parent
            eaten.append(os.urandom(1 << 20) * 50)
            time.sleep(0.05)
    (folder / "dense.pt").write_bytes(b"x")
    return Row(name, family, THROUGH, input=(3, 32, 32), seconds=1.0)


def outcomes(names, bounds=LOOSE, jobs=1):
    return {row.name: row for row in try_all([candidate(name) for name in names], bounds, jobs, work)}


def test_each_network_ends_in_a_row_whatever_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = outcomes(["a", "raises", "dies", "b"], jobs=2)
    assert {name: row.outcome for name, row in rows.items()} == {
        "a": THROUGH, "b": THROUGH, "raises": FAILED, "dies": FAILED,
    }  # fmt: skip
    assert rows["raises"].reason.endswith("RuntimeError: nobody foresaw it")
    assert "signal 9" in rows["dies"].reason
    assert rows["raises"].num_parameters == 1_000_000
    assert list(tmp_path.iterdir()) == []


def test_time_and_memory_are_bounded():
    assert outcomes(["hangs"], Bounds(0.5, 1e12))["hangs"].reason == "more than 0 s"
    over = outcomes(["eats"], Bounds(300, 300e6 + zoo._resident_bytes(os.getpid())))["eats"]
    assert over.outcome == OVER
    assert "memory" in over.reason


def test_a_sample_takes_one_of_each_family_first_and_the_smallest_come_first():
    everything = [candidate(f"{family}{size}", family, size) for family in "abc" for size in (3, 1, 2, 50)]
    sample = choose(everything, max_parameters=30e6, num_sample=3, seed=0)
    assert {one.family for one in sample} == set("abc")
    assert [one.num_parameters for one in sample] == sorted(one.num_parameters for one in sample)
    assert sample == choose(everything, max_parameters=30e6, num_sample=3, seed=0)
    assert len(choose(everything, max_parameters=30e6, num_sample=None, seed=0)) == 9
    assert len(choose(everything, max_parameters=30e6, num_sample=99, seed=0)) == 9


def test_a_log_is_gone_on_with(tmp_path, monkeypatch, capsys):
    names = ["timm:a", "timm:b", "timm:c"]
    monkeypatch.setattr(zoo, "named", lambda: ((name, "f") for name in names))
    monkeypatch.setattr(zoo, "warm_up", lambda: None)
    tried = []

    def attempt(wanted, bounds, jobs):
        for one in wanted:
            tried.append(one.name)
            outcome = FAILED if one.name == "timm:b" and tried.count("timm:b") == 1 else THROUGH
            yield Row(one.name, one.family, outcome, input=(3, 32, 32))

    monkeypatch.setattr(zoo, "try_all", attempt)
    out = tmp_path / "zoo.jsonl"
    (tmp_path / "zoo.sizes.json").write_text(json.dumps(dict.fromkeys(names, 5)))
    assert main(["--out", str(out), "--names", "timm:a", "timm:b"]) == 1
    assert main(["--out", str(out)]) == 1
    assert tried == names
    assert main(["--out", str(out), "--again", "failed"]) == 0
    assert tried == [*names, "timm:b"]
    assert {row.name: row.outcome for row in read_rows(out)} == dict.fromkeys(names, THROUGH)
    capsys.readouterr()
    assert main(["--out", str(out), "--table"]) == 0
    assert "3 networks of 1 families, 100.0% through" in capsys.readouterr().out


def test_the_table_joins_what_has_one_reason():
    rows = [
        Row("timm:a", "f", THROUGH, seconds=2.0, cpu_seconds=1.0, peak_mb=100.0),
        Row("timm:b", "g", REFUSED, "the network's weights take 2.6 GB in float32 | hint"),
        Row("timm:c", "g", REFUSED, "the network's weights take 4.1 GB in float32 | hint"),
    ]
    lines = table(rows).splitlines()
    assert "| refused | the network's weights take … GB in float32 | 2 |" in lines
    assert lines[-1].startswith(
        "3 networks of 2 families, 33.3% through; 2 s, of the processor 1 s; of those through 2.0 s and 100 MB in the"
    )
    assert kind_of("Conv2d blocks.0.conv of 3 in float32 | d") == "Conv2d … of … in float32"


@pytest.mark.slow
def test_all_classifiers_of_both_libraries_are_found(tmp_path):
    found = candidates(tmp_path / "sizes.json", ["timm:test_vit*", "torchvision:squeezenet*", "timm:resnet1?"])
    sizes = {one.name: one.num_parameters for one in found}
    assert sizes["torchvision:squeezenet1_0"] == 1_248_424
    assert sizes["timm:resnet18"] == 11_689_512
    assert {one.family for one in found} == {
        "vision_transformer", "vision_transformer_relpos", "resnet", "torchvision squeezenet",
    }  # fmt: skip
    assert candidates(tmp_path / "sizes.json", ["timm:resnet18"])[0].num_parameters == 11_689_512
