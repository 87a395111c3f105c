import peers
import peers_cell
import pytest


def row(source, made_cpu_s, hits, **changes):
    student = {"pattern": "75", "recovery": "repair", "cpu_s": 1.0, "accuracy": {"hits": hits, "total": 500}}
    return {
        "task": {"network": "resnet20", "source": source, "seed": 0},
        "num_made": 80,
        "made_cpu_s": made_cpu_s,
        "made_peak_bytes": 1.5e9,
        "teacher": {"hits": 455, "total": 500},
        "students": [student],
        "peers": {"nncf": "3.4.0"},
    } | changes


def test_the_table_has_a_row_for_each_set_of_images_and_a_column_for_each_student():
    lines = peers.table([row("ours", 40, 430), row("mct", 400, 400, students=[])]).splitlines()
    assert lines[2] == "| resnet20 | edgerecover, `fast` | 0 | 80 | 2.00 | 1.50 | 86.0 |"
    assert lines[3] == "| resnet20 | MCT, its defaults (500 steps) | 0 | 80 | 0.20 | 1.50 |  |"
    assert lines[-1] == "resnet20: dense 91.0 %. nncf 3.4.0."


def test_a_peer_that_is_not_there_is_named(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(peers_cell, "import_module", import_module)
    with pytest.raises(SystemExit, match="pip install model-compression-toolkit"):
        peers_cell.installed("nncf")


def test_every_recovery_named_is_there():
    assert peers_cell._RECOVERIES.keys() == peers_cell.RECOVERIES.keys()
