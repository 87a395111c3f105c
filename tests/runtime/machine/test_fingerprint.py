from edgerecover.artifacts import Host
from edgerecover.runtime.machine.fingerprint import fingerprint
from edgerecover.runtime.machine.host import this_host

HOST = Host("aarch64", "Cortex-A78AE", 6, "Linux 5.15.148-tegra", "NVIDIA Jetson Orin Nano", isa=("asimd", "asimddp"))


def test_a_jetson(tmp_path, machines):
    root = machines.write_tree(tmp_path, machines.ORIN_NANO)
    found = fingerprint(HOST, {"tensorrt": "10.3.0.30"}, root)
    assert (
        found.facts.items()
        >= {
            "cpu": "Cortex-A78AE",
            "instructions": "asimd asimddp",
            "governor": "schedutil",
            "power mode": "MAXN_SUPER (2)",
            "tensorrt": "10.3.0.30",
        }.items()
    )
    machines.write_tree(root, {"var/lib/nvpmodel/status": "pmode:0000\n"})
    later = fingerprint(HOST, {"tensorrt": "10.3.0.30"}, root)
    assert later.digest != found.digest
    assert later.differences(found) == ("power mode: 15W (0), was MAXN_SUPER (2)",)


def test_what_is_not_known_has_no_entry(tmp_path):
    facts = fingerprint(HOST, {}, tmp_path).facts
    assert "governor" not in facts
    assert "gpu" not in facts
    assert all(facts.values())


def test_this_machine_is_the_same_twice():
    host = this_host()
    assert fingerprint(host, {"onnxruntime": "1"}).digest == fingerprint(host, {"onnxruntime": "1"}).digest
