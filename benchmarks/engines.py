"""A forward pass of the embedded prior by each engine and in each precision, taking turns in one process on one thread.

    python benchmarks/engines.py --batch 64 --compiled      # pip install openvino for its rows

Times are the CPU's own, as ratios of their medians to float32 in eager mode; beside them the largest difference to that
of the noise estimates, which have a standard deviation of 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.diffusion import Prior
from zipbatch.stages.assets import embedded_prior

CPU, T = torch.device("cpu"), 200
Engine = Callable[[Tensor], Tensor]


def eager(prior: Prior, *, planes: bool = False, autocast: bool = False) -> Engine:
    """``prior`` as it is."""
    layout = torch.contiguous_format if planes else torch.channels_last

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return prior(x.contiguous(memory_format=layout), T)  # type: ignore[no-any-return]

    prior.to(memory_format=layout)  # type: ignore[call-overload]
    return run


def openvino(prior: Prior, x: Tensor, precision: str) -> Engine:
    """The same network in OpenVINO, static in shape."""
    import openvino as ov  # type: ignore[import-not-found,unused-ignore]

    timestep = torch.full((len(x),), T)
    model = ov.convert_model(prior, example_input=(x, timestep))
    model.reshape({0: list(x.shape), 1: [len(x)]})
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(x: Tensor) -> Tensor:
        request.infer({0: x.numpy(), 1: timestep.numpy()})
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def engines(x: Tensor, *, compiled: bool) -> dict[str, Engine]:
    """All there are here, by name."""

    def fresh() -> Prior:
        return load_prior(open_prior(embedded_prior()))

    found = {
        "float32": eager(fresh()),
        "bfloat16 by autocast": eager(fresh(), planes=True, autocast=True),
        "bfloat16": eager(fresh().cast(CPU, torch.bfloat16), planes=True),
    }
    if compiled:
        found["float32, compiled"] = eager(fresh().cast(CPU, torch.float32, compiled=True))
        found["bfloat16, compiled"] = eager(fresh().cast(CPU, torch.bfloat16, compiled=True), planes=True)
    if find_spec("openvino"):
        found |= {f"openvino {precision}": openvino(fresh(), x, precision) for precision in ("f32", "bf16")}
    return found


@torch.inference_mode()
def main() -> None:
    """Take turns, print each engine's ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compiled", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(asked.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False), torch.no_grad():
        found = engines(x.clone(), compiled=asked.compiled)
    answers = {name: engine(x) for name, engine in found.items()}
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(asked.rounds):
        for name, engine in found.items():
            started = time.process_time()
            engine(x)
            taken[name].append(time.process_time() - started)
    base = statistics.median(taken["float32"])
    for name, seconds in taken.items():
        apart = float((answers[name] - answers["float32"]).abs().max())
        row = {"engine": name, "ratio": round(statistics.median(seconds) / base, 3), "apart": round(apart, 6)}
        print(json.dumps(row))  # noqa: T201


if __name__ == "__main__":
    main()
