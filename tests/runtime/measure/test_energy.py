import time

import pytest

from edgerecover.runtime.measure.energy import meter_here


def test_no_sensor_no_meter(tmp_path):
    assert meter_here(tmp_path) is None


def test_rapl_counts_packages_once_and_wraps(tmp_path, machines):
    root = machines.write_tree(tmp_path, machines.LAPTOP)
    meter = meter_here(root)
    assert meter.source == "RAPL, package-0"
    meter.start()
    machines.write_tree(root, {"sys/class/powercap/intel-rapl:0/energy_uj": "3500000\n"})
    assert meter.stop_mj() == pytest.approx(2500)
    machines.write_tree(root, {"sys/class/powercap/intel-rapl:0/energy_uj": "262143000000\n"})
    meter.start()
    machines.write_tree(root, {"sys/class/powercap/intel-rapl:0/energy_uj": "1000\n"})
    assert meter.stop_mj() == pytest.approx(329.85)


def test_a_sensor_that_stops_answering_adds_nothing(tmp_path, machines):
    root = machines.write_tree(tmp_path, machines.LAPTOP)
    meter = meter_here(root)
    meter.start()
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert meter.stop_mj() == 0
    assert meter_here(root) is None


def test_a_jetson_s_board_is_power_times_time(tmp_path, machines, monkeypatch):
    meter = meter_here(machines.write_tree(tmp_path, machines.ORIN_NANO))
    assert meter.source == "INA3221 VDD_IN, the whole board"
    now_s = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    meter.start()
    now_s[0] += 2.0
    # 5 V × 1.6 A over two seconds.
    assert meter.stop_mj() == pytest.approx(16_000)


def test_rails_that_are_the_board_together(tmp_path, machines):
    meter = meter_here(machines.write_tree(tmp_path, machines.AGX_ORIN))
    assert meter.source == "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, the whole board"
    meter.start()
    assert meter.stop_mj() >= 0


def test_a_gpu_at_work_comes_first(tmp_path, machines):
    class Gpu:
        read = iter([0.0, 100.0, 350.0])

        def energy_mj(self):
            return next(self.read)

        def name(self):
            return "NVIDIA GPU"

    meter = meter_here(machines.write_tree(tmp_path, machines.LAPTOP), Gpu())
    assert meter.source == "NVML, NVIDIA GPU"
    meter.start()
    assert meter.stop_mj() == 250
