"""A race's worker that runs PyTorch: eager, and compiled. No runtime of a device, so it stands here.

Found by `Entrant.worker`; the model is a whole module that edge_latency.py saved a moment ago.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgerecover.runtime.measure import worker
from edgerecover.runtime.session.opened import Classifier, InputLayout

RUNTIMES = ("torch eager", "torch.compile")


class TorchSession(Classifier):
    """A module in eval mode, one thread unless told otherwise."""

    cuda_graph = False
    copies = False
    providers = ("CPU",)
    outputs = ("logits",)
    provider = "CPU"
    notes = ()

    def __init__(self, path: Path, runtime: str, num_threads: int | None, shape_CHW: tuple[int, int, int]) -> None:
        started_ns = time.perf_counter_ns()
        torch.set_num_threads(num_threads or 1)
        self.runtime, self.version = runtime, torch.__version__
        self.num_threads = torch.get_num_threads()
        sys.path.insert(0, str(path.parent))  # where models.py lies
        network = torch.load(path, weights_only=False).eval()
        self._network = torch.compile(network) if runtime == "torch.compile" else network
        super().__init__(path, InputLayout("input", "float32", 1, shape_CHW, False), None)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6

    @property
    def nodes_by_provider(self) -> dict[str, int]:
        return {"CPU": 1}

    def insist(self) -> None:
        """There is one provider."""

    def run_batch(self, feed: Any) -> list[Any]:
        with torch.inference_mode():
            return [self._network(torch.from_numpy(feed)).numpy()]


def open_torch(
    path: Path,
    runtime: str,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    shape_CHW: tuple[int, int, int] | None = None,
    batch: int | None = None,
    **_: Any,
) -> TorchSession:
    assert shape_CHW is not None
    assert batch in (None, 1)
    return TorchSession(path, runtime, num_threads, shape_CHW)


def main(argv: Sequence[str] | None = None) -> int:
    worker.open_model = open_torch
    return worker.main(argv)
