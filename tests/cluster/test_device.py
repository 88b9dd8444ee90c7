"""What a machine says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zipbatch.cluster import device


@pytest.mark.parametrize(
    ("flags", "cap", "expected"),
    [
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", None, True),
        ("flags\t\t: fpu avx512f avx512_bf16", None, True),
        ("Features\t: fp asimd bf16 i8mm", None, True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", None, False),
        ("flags\t\t: fpu amx_tile amx_int8", None, False),
        ("model name\t: amx_bf16 avx512_bf16", None, False),
        ("flags\t\t: amx_bf16 avx512_bf16", "AVX512_CORE", False),
        ("flags\t\t: amx_bf16 avx512_bf16", "avx2", False),
        ("flags\t\t: amx_bf16 avx512_bf16", "AVX512_CORE_BF16", True),
        ("flags\t\t: amx_bf16 avx512_bf16", "DEFAULT", True),
    ],
)
def test_a_cpu_is_asked(flags: str, cap: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(device, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    if cap is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert device.has_bfloat16(torch.device("cpu")) is expected


def test_a_machine_that_does_not_say_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "_CPU_INFO", tmp_path / "none")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert not device.has_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)])
def test_a_gpu_is_asked(capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.has_bfloat16(torch.device("cuda")) is expected
