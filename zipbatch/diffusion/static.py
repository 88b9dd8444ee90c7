"""A network compiled for one number of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""Of each call, whatever the batch: so that one shape is compiled, and what a row comes to depends on no batch size."""
_OPTIONS: dict[str, Any] = {
    "cpp.threads": 1,  # as compute threads are; and a result does not depend on the number of cores
    "freezing": True,  # weights are constants, laid out as the kernels want them
}


class Static(nn.Module):
    """A UNet that is compiled when it is first called, by torch's inductor, for ``ROWS`` rows: larger batches are
    cut, the last piece is padded with its last row, and what comes of the padding is dropped.

    Args:
        unet: ``(sample [B, c, h, w], t int64 [B], return_dict=False) -> (out,)``, in evaluation mode, never changed.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self._call = torch.compile(unet, dynamic=False, fullgraph=True, options=_OPTIONS)

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """As the UNet; only without gradients."""
        assert not return_dict
        out = [
            self._call(_padded(rows), _padded(t), return_dict=False)[0][: len(rows)]
            for rows, t in zip(sample.split(ROWS), timestep.split(ROWS), strict=True)  # type: ignore[no-untyped-call]
        ]
        return (torch.cat(out),)


def _padded(rows: Tensor) -> Tensor:
    """``ROWS`` rows, in one layout whatever comes: another would be compiled anew."""
    full = torch.empty((ROWS, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    full[: len(rows)] = rows
    full[len(rows) :] = rows[-1]
    return full
