"""ncnn, LiteRT and ExecuTorch beside ONNX Runtime: one core, one query at a time, in turns; dense and with zeros.

    python benchmarks/other_runtimes.py FOLDER --site ncnn=DIR --site litert=DIR --site executorch=DIR

Each runtime and its converter are installed apart, because their requirements differ (versions that were measured):

    pip install --no-deps --target NCNN ncnn==1.0.20261020 pnnx==20261020 portalocker
    pip install --no-deps --target LITERT litert-torch==0.10.0 ai-edge-litert==2.3.0 litert-converter==0.5.*
    pip install --no-deps --target EXECUTORCH executorch==1.5.1 torchao==0.18.0

with what these import beside it (the error names it). Weights are random, batch norm has seen random images. Times are
CPU seconds of the process, so that other work on the machine costs caches and clock alone; ratios are of one round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("resnet18", "mobilenet_v2")
SPARSITIES = (0.0, 0.8)
SUFFIXES = {"onnxruntime": ".onnx", "ncnn": ".ncnn.param", "litert": ".tflite", "executorch": ".pte"}
REFERENCE = "onnxruntime"
SHAPE = (1, 3, 224, 224)


def network_of(name: str, sparsity: float) -> Any:
    """With the smallest weights of each convolution and linear layer set to zero."""
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = getattr(torchvision.models, name)(weights=None).train()
    with torch.no_grad():
        network(torch.randn(8, *SHAPE[1:]))  # or signals fade away, and tiny numbers are slow
        for layer in network.modules():
            if sparsity and isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                size = layer.weight.abs().flatten()
                layer.weight[layer.weight.abs() <= size.kthvalue(int(sparsity * size.numel())).values] = 0
    return network.eval()


def image() -> Any:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def convert(runtime: str, name: str, sparsity: float, stem: Path) -> None:
    import torch

    network, images = network_of(name, sparsity), torch.from_numpy(image())
    if runtime == "onnxruntime":
        torch.onnx.export(network, (images,), f"{stem}.onnx", dynamo=True, external_data=False, verbose=False)
    elif runtime == "ncnn":
        import pnnx

        pnnx.export(network, f"{stem}.pt", (images,), fp16=False)
    elif runtime == "litert":
        import litert_torch

        litert_torch.convert(network, (images,)).export(f"{stem}.tflite")
    else:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(network, (images,))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        Path(f"{stem}.pte").write_bytes(lowered.buffer)


def opened(runtime: str, stem: Path) -> Callable[[], Any]:
    """Runs the image through a file; gives the scores."""
    images = image()
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(f"{stem}.onnx", options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: images})[0]
    if runtime == "ncnn":
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = 1
        net.load_param(f"{stem}.ncnn.param")
        net.load_model(f"{stem}.ncnn.bin")
        matrix = ncnn.Mat(images[0]).clone()

        def extract() -> Any:
            extractor = net.create_extractor()
            extractor.input("in0", matrix)
            return np.array(extractor.extract("out0")[1])

        return extract
    if runtime == "litert":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=f"{stem}.tflite", num_threads=1)
        interpreter.allocate_tensors()
        given, scores = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def invoke() -> Any:
            interpreter.set_tensor(given, images)
            interpreter.invoke()
            return interpreter.get_tensor(scores)

        return invoke
    import torch
    from executorch.runtime import Runtime

    torch.set_num_threads(1)
    program = Runtime.get().load_program(Path(f"{stem}.pte"))
    method, tensor = program.load_method("forward"), torch.from_numpy(images)
    return lambda: method.execute([tensor])[0].numpy()


def serve(runtime: str, stem: Path) -> None:
    """Each line on stdin is a number of queries; the answer is their CPU seconds."""
    run = opened(runtime, stem)
    scores = np.asarray(run()).reshape(-1)
    print(json.dumps({"scores": scores.tolist()}), flush=True)
    for line in sys.stdin:
        started = time.process_time()
        for _ in range(int(line)):
            run()
        print(json.dumps({"seconds": (time.process_time() - started) / int(line)}), flush=True)


class Worker:
    def __init__(self, runtime: str, stem: Path, site: str | None, core: int) -> None:
        self.runtime = runtime
        self.size_bytes = sum(path.stat().st_size for path in files_of(runtime, stem))
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, __file__, "--serve", runtime, str(stem)],
            env=environment(site), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.scores = np.asarray(self.answer()["scores"])

    def answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):  # some print more
                return json.loads(line)
        raise SystemExit(f"{self.runtime} ended")

    def seconds(self, queries: int) -> float:
        self.process.stdin.write(f"{queries}\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]


def environment(site: str | None) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def files_of(runtime: str, stem: Path) -> list[Path]:
    endings = (".ncnn.param", ".ncnn.bin") if runtime == "ncnn" else (SUFFIXES[runtime],)
    return [Path(f"{stem}{ending}") for ending in endings]


def stem_of(folder: Path, runtime: str, name: str, sparsity: float) -> Path:
    (folder / runtime).mkdir(parents=True, exist_ok=True)
    return folder / runtime / f"{name}_{round(100 * sparsity)}"


def race(folder: Path, sites: dict[str, str], rounds: int, core: int) -> None:
    for name in NETWORKS:
        workers = {}
        for runtime in (REFERENCE, *sites):
            for sparsity in SPARSITIES:
                stem = stem_of(folder, runtime, name, sparsity)
                if not Path(f"{stem}{SUFFIXES[runtime]}").exists():
                    command = [sys.executable, __file__, "--convert", runtime, name, str(sparsity), str(stem)]
                    subprocess.run(command, env=environment(sites.get(runtime)), check=True, capture_output=True)
                workers[runtime, sparsity] = Worker(runtime, stem, sites.get(runtime), core)
        seconds: dict[tuple[str, float], list[float]] = {key: [] for key in workers}
        order = list(workers)
        for number in range(rounds + 1):
            for key in order[number % len(order) :] + order[: number % len(order)]:
                took = workers[key].seconds(2)
                if number:  # the first warms up
                    seconds[key].append(took)
        print(f"\n{name}, load {os.getloadavg()[0]:.1f}, {rounds} rounds of 2 queries")
        for (runtime, sparsity), took in seconds.items():
            dense, own = seconds[REFERENCE, 0.0], seconds[runtime, 0.0]
            to_reference = sorted(a / b for a, b in zip(took, dense, strict=True))
            to_own = statistics.median(a / b for a, b in zip(took, own, strict=True))
            meant = workers[REFERENCE, sparsity].scores
            off = np.abs(workers[runtime, sparsity].scores - meant).max() / meant.std()
            low, high = to_reference[len(took) // 10], to_reference[-1 - len(took) // 10]
            print(
                f"{runtime:12} {sparsity:4.0%} zeros: {1e3 * statistics.median(took):6.1f} ms CPU, "
                f"{statistics.median(to_reference):.2f} ({low:.2f}-{high:.2f}) of {REFERENCE} dense, "
                f"{to_own:.2f} of its own dense; {workers[runtime, sparsity].size_bytes / 1e6:.1f} MB; "
                f"scores off by {off:.1e} of their spread"
            )
        for worker in workers.values():
            worker.process.stdin.close()
            worker.process.wait()


def main() -> None:
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "--convert":
        convert(sys.argv[2], sys.argv[3], float(sys.argv[4]), Path(sys.argv[5]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("folder", type=Path, help="where converted files are kept")
        parser.add_argument("--site", action="append", default=[], metavar="RUNTIME=DIR")
        parser.add_argument("--rounds", type=int, default=15)
        parser.add_argument("--core", type=int, default=0)
        options = parser.parse_args()
        race(options.folder.absolute(), dict(site.split("=", 1) for site in options.site), options.rounds, options.core)


if __name__ == "__main__":
    main()
