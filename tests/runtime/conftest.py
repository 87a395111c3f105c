from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info


def write_classifier(path, batch, shape=(3, 4, 4), num_classes=5):
    """Conv, Relu, mean, Gemm: written by hand, so that these tests need no torch."""
    random = np.random.default_rng(0)
    weights = {
        "conv": random.standard_normal((8, shape[0], 3, 3), np.float32),
        "fc": random.standard_normal((8, num_classes), np.float32),
    }
    nodes = [
        make_node("Conv", ["input", "conv"], ["a"], pads=[1, 1, 1, 1]),
        make_node("Relu", ["a"], ["b"]),
        make_node("GlobalAveragePool", ["b"], ["c"]),
        make_node("Flatten", ["c"], ["d"]),
        make_node("Gemm", ["d", "fc"], ["logits"]),
    ]
    graph = make_graph(
        nodes,
        "classifier",
        [make_tensor_value_info("input", onnx.TensorProto.FLOAT, [batch, *shape])],
        [make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, num_classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def classifier(tmp_path):
    return write_classifier(tmp_path / "static.onnx", batch=4)


@pytest.fixture
def dynamic_classifier(tmp_path):
    return write_classifier(tmp_path / "dynamic.onnx", batch="batch")


@pytest.fixture(params=["u8", "s8"])
def int8_classifier(request, tmp_path):
    """Q/DQ with weights of all eight bits, and images on which pairs of products pass 16 bits: 2 × 255 × 127.

    The file, the images and the scores that the file means.
    """
    random = np.random.default_rng(0)
    weight_OI = (random.integers(100, 128, (5, 32)) * random.choice([-1, 1], (5, 1))).astype(np.int8)
    kind, zero = (np.uint8, 0) if request.param == "u8" else (np.int8, -128)
    values = {
        "in_scale": np.float32(1 / 255), "in_zero": kind(zero),
        "weight": weight_OI[:, :, None, None], "weight_scale": np.float32(1 / 127), "weight_zero": np.int8(0),
        "out_scale": np.float32(0.25), "out_zero": kind(zero + 128),
    }  # fmt: skip
    nodes = [
        make_node("QuantizeLinear", ["input", "in_scale", "in_zero"], ["a"]),
        make_node("DequantizeLinear", ["a", "in_scale", "in_zero"], ["b"]),
        make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"]),
        make_node("Conv", ["b", "w"], ["c"]),
        make_node("QuantizeLinear", ["c", "out_scale", "out_zero"], ["d"]),
        make_node("DequantizeLinear", ["d", "out_scale", "out_zero"], ["e"]),
        make_node("GlobalAveragePool", ["e"], ["f"]),
        make_node("Flatten", ["f"], ["logits"]),
    ]
    graph = make_graph(
        nodes,
        "int8",
        [make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 32, 4, 4])],
        [make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    path = tmp_path / f"{request.param}.onnx"
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    images_NCHW = np.ones((3, 32, 4, 4), np.float32)
    sums_O = weight_OI.astype(np.int64).sum(1) / 127
    meant_NK = np.tile(np.clip(np.round(sums_O / 0.25), -128, 127) * 0.25, (3, 1))
    return path, images_NCHW, meant_NK


# --- machines -----------------------------------------------------------------------------------------------
# Trees of /proc, /sys and /etc as kinds of machine have them, written after the drivers' documentation.


def write_tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


STAT = (
    "cpu  1000 0 500 8000 100 0 50 200 0 0\ncpu0 600 0 300 3900 50 0 25 100 0 0\ncpu1 400 0 200 4100 50 0 25 100 0 0\n"
)

LAPTOP = {
    "proc/stat": STAT,
    "proc/loadavg": "3.20 1.10 0.50 3/812 4711\n",
    "proc/self/cgroup": "0::/user.slice/app.scope\n",
    "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
    **{
        f"sys/devices/system/cpu/cpu{core}/{name}": value
        for core in range(64)
        for name, value in {
            "cpufreq/scaling_cur_freq": "2400000\n",
            "cpufreq/scaling_min_freq": "800000\n",
            "cpufreq/scaling_max_freq": "4800000\n",
            "cpufreq/cpuinfo_max_freq": "4800000\n",
            "cpufreq/scaling_governor": "powersave\n",
            "thermal_throttle/core_throttle_count": "3\n",
        }.items()
    },
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_input": "61000\n",
    "sys/class/thermal/thermal_zone0/temp": "-274000\n",
    "sys/class/thermal/cooling_device0/type": "Fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "1\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "700000\n",
}

PI_5 = {
    "proc/stat": STAT,
    "proc/loadavg": "0.10 0.05 0.01 1/150 900\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "84100\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "e0008\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "4\n",
}

ORIN_NANO = {
    "proc/stat": STAT,
    "proc/loadavg": "0.30 0.20 0.10 1/400 1200\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1600\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr2_input": "600\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
}

AGX_ORIN = {
    **{
        f"sys/class/hwmon/hwmon{monitor}/{kind}{channel}_{part}": value
        for monitor, rails in enumerate((("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("NC", "VDDQ_VDD2_1V8AO", "NC")))
        for channel, rail in enumerate(rails, 1)
        for kind, part, value in (("in", "label", rail), ("in", "input", "19000"), ("curr", "input", "100"))
    },
    "sys/class/hwmon/hwmon0/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
}


@pytest.fixture
def machines():
    """Those trees by name, and what writes them."""
    return SimpleNamespace(
        write_tree=write_tree, STAT=STAT, LAPTOP=LAPTOP, PI_5=PI_5, ORIN_NANO=ORIN_NANO, AGX_ORIN=AGX_ORIN
    )
