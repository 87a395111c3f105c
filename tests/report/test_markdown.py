import dataclasses
import itertools

from edgerecover.report.markdown import markdown


def table_of(text, title):
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_the_facts_of_a_run_are_there(report):
    text = markdown(report)
    assert text.startswith("# PASS: model.pt for jetson-orin\n")
    for fact in (
        "profile balanced, seed 0, cpu (2 threads), data used: none, 2026-03-01T09:30:00+00:00",
        "| student sha256 | " + "3f" * 32 + " |",
        "| synthetic images | 1,024 train, 256 calibration, 256 held out |",
        "| distillation | 91.8 % | kept |",
        "91.0 % (86.9–93.9) of 256 held-out dreams",
        "| agreement before recovery | 41.8 % (35.9–47.9) |",
        "67,084 of 268,336 are nonzero",
        "| p99 | 2.454 ms |",
        "> model.pt: 3 keys of optimizer state were ignored",
    ):
        assert fact in text
    assert [row[1] for row in table_of(text, "Gates")] == ["PASS", "PASS", "PASS", "DEVICE"]


def test_both_architectures_are_named_where_they_differ(report_with_accuracy):
    teacher = dataclasses.replace(report_with_accuracy.teacher, architecture="models.py:resnet56")
    other = dataclasses.replace(report_with_accuracy, teacher=teacher, same_architecture=False)
    assert ["teacher's architecture", "models.py:resnet56"] in table_of(markdown(other), "Model")
    accuracy = f"Accuracy on 500 real images ({report_with_accuracy.accuracy.source})"
    assert [row[0] for row in table_of(markdown(other), accuracy)] == ["teacher", "as it came", "recovered", "exported"]
    assert "teacher's architecture" not in markdown(report_with_accuracy)


def test_every_table_is_rectangular(report_with_accuracy):
    lines = markdown(report_with_accuracy).splitlines()
    for above, below in itertools.pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.count(" | ") == below.count(" | ")


def test_a_bar_or_a_new_line_in_a_text_does_not_break_its_table(report):
    exporter = "torchscript (dynamo failed: a | b\nsecond line)"
    report = dataclasses.replace(report, exported=dataclasses.replace(report.exported, exporter=exporter))
    assert "dynamo failed: a \\| b second line)" in markdown(report)


def test_latency_says_whose_it_is(report):
    there = dataclasses.replace(report, latency=dataclasses.replace(report.latency, host_is_target=True))
    assert "| kind | host latency: this machine is not the target |" in markdown(report)
    assert "| kind | target latency |" in markdown(there)
    assert "host latency:" not in markdown(there)


def test_accuracy_is_spoken_of_only_with_real_data(report, report_with_accuracy):
    without_prediction = dataclasses.replace(report, fidelity=dataclasses.replace(report.fidelity, predicted=None))
    assert "accuracy" not in markdown(without_prediction).lower()
    rows = table_of(markdown(report_with_accuracy), "Accuracy on 500 real images (cifar10_dev)")
    assert rows == [
        ["teacher", "91.0 % (88.2–93.2)"],
        ["pruned", "60.6 % (56.3–64.8)"],
        ["recovered", "89.8 % (86.8–92.2)"],
        ["exported", "89.8 % (86.8–92.2)"],
    ]


def test_a_file_from_elsewhere_shows_what_there_is(report):
    alone = dataclasses.replace(report.fidelity, pruned=None, recovered=None)
    text = markdown(dataclasses.replace(report, rungs=(), parity=None, fidelity=alone))
    for absent in ("Recovery ladder", "parity with", "before recovery", "| None"):
        assert absent not in text


def test_nothing_in_a_report_becomes_markup(report):
    evil = "![x](http://e.example/p.png) <img src=x> [a](b) `c` | d\x1b[2J\u202e"
    hostile = dataclasses.replace(
        report,
        student=dataclasses.replace(report.student, path=evil, architecture=evil),
        warnings=(evil,),
        profile=evil,
        gates=tuple(dataclasses.replace(gate, message=evil) for gate in report.gates),
    )
    text = markdown(hostile)
    for markup in ("![x]", "<img", "[a](b)", " `c`", "\x1b", "\u202e"):
        assert markup not in text
    assert [len(row) for row in table_of(text, "Gates")] == [3] * len(report.gates)
