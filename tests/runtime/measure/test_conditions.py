import pytest

from edgerecover.runtime.measure.conditions import Watch


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_machine_that_tells_nothing(tmp_path):
    watch = Watch(tmp_path)
    watch.read()
    watch.read()
    conditions = watch.conditions()
    assert conditions.num_readings == 2
    others = {name: value for name, value in vars(conditions).items() if name != "num_readings"}
    assert set(others.values()) == {None}
    assert Watch(tmp_path).conditions().num_readings == 0


def test_a_laptop_with_a_busy_neighbour(tmp_path, monkeypatch, machines):
    root, clock = machines.write_tree(tmp_path, machines.LAPTOP), Clock()
    monkeypatch.setattr("os.sysconf", lambda name: 100, raising=False)
    watch = Watch(root, cores=(0,), clock_s=clock)
    watch.read()
    # Ten seconds: core 0 was busy for 8, of which 5 were ours, and the hypervisor took 1.
    later = machines.STAT.replace("cpu0 600 0 300 3900 50 0 25 100", "cpu0 1300 0 400 4000 50 0 25 200")
    machines.write_tree(
        root,
        {
            "proc/stat": later,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n",
            "sys/class/hwmon/hwmon0/temp1_input": "97000\n",
        },
    )
    clock.now_s += 10
    watch.ours(5.0)
    watch.read()
    conditions = watch.conditions()
    assert conditions.busy_elsewhere == pytest.approx(0.3)
    assert conditions.stolen == pytest.approx(0.1)
    assert (conditions.cpu_mhz_lowest, conditions.cpu_mhz_highest, conditions.cpu_mhz_limit) == (1200, 2400, 4800)
    assert (conditions.temperature_before_c, conditions.temperature_peak_c) == (61, 97)
    assert conditions.throttled == ("CPU too hot",)
    assert conditions.governor == "powersave"
    assert conditions.load_before == 3.2
    assert conditions.cpu_quota == 1.5
    assert conditions.clocks_locked is False
    assert conditions.power_mode is None


def test_what_a_fan_does_is_no_throttling(tmp_path, machines):
    watch = Watch(machines.write_tree(tmp_path, machines.LAPTOP), cores=(0,))
    watch.read()
    assert watch.conditions().throttled == ()


def test_a_raspberry_pi_that_is_too_hot_now_and_was_too_weak_once(tmp_path, machines):
    watch = Watch(machines.write_tree(tmp_path, machines.PI_5), cores=(0,))
    watch.read()
    assert watch.conditions().throttled == ("soft temperature limit",)
    machines.write_tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "throttled=0x50005\n"})
    watch.read()
    assert watch.conditions().throttled == ("soft temperature limit", "throttled", "under-voltage")
    machines.write_tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "nonsense\n"})
    again = Watch(tmp_path, cores=(0,))
    again.read()
    assert again.conditions().throttled == ()


def test_an_orin_nano(tmp_path, machines):
    watch = Watch(machines.write_tree(tmp_path, machines.ORIN_NANO), cores=(0,))
    watch.read()
    machines.write_tree(
        tmp_path,
        {"sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n", "sys/class/hwmon/hwmon2/oc1_event_cnt": "1\n"},
    )
    watch.read()
    conditions = watch.conditions()
    assert conditions.power_mode == "MAXN_SUPER (2)"
    assert (conditions.gpu_mhz_lowest, conditions.gpu_mhz_highest) == (306, 624.75)
    assert conditions.clocks_locked is False
    assert conditions.throttled == ("over-current",)
    machines.write_tree(tmp_path, {"sys/class/devfreq/17000000.gpu/min_freq": "624750000\n"})
    assert Watch(tmp_path, cores=(0,)).conditions().clocks_locked is None  # nothing was read
    locked = Watch(tmp_path, cores=(0,))
    locked.read()
    assert locked.conditions().clocks_locked is True


@pytest.mark.parametrize("content", ["", "cpu\n", "cpu a b c d e f g h\n", "cpu0 1 2 3\n", "\x00\x00"])
def test_files_of_any_content_are_no_error(tmp_path, content, machines):
    names = ("proc/stat", "proc/loadavg", "var/lib/nvpmodel/status", "sys/class/thermal/thermal_zone0/temp")
    watch = Watch(machines.write_tree(tmp_path, dict.fromkeys(names, content)), cores=(0,))
    watch.read()
    watch.read()
    conditions = watch.conditions()
    assert conditions.busy_elsewhere is None
    assert conditions.temperature_peak_c is None


def test_this_machine():
    watch = Watch()
    watch.read()
    watch.read()
    conditions = watch.conditions()
    assert conditions.stolen is None or 0 <= conditions.stolen <= 1
    assert conditions.busy_elsewhere is None or conditions.busy_elsewhere >= 0
