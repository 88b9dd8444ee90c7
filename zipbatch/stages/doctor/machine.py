"""What of this machine a run needs: Python, torch, GPUs, memory, disk, shared memory."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from zipbatch.cluster.device import cpu_cores
from zipbatch.memory import GB, total
from zipbatch.stages.doctor.finding import Finding

LEAST_PYTHON, LEAST_TORCH = (3, 11), (2, 11)
LEAST_MEMORY_GB, LEAST_DISK_GB, LEAST_SHARED_GB = 4, 5, 1
LEAST_OPEN_FILES = 1024
LEFT_AFTER_S = 24 * 3600.0
_SHARED = Path("/dev/shm")  # noqa: S108
_GPU = Path("/dev/nvidia0")


def python() -> Finding:
    """The interpreter's version."""
    version = sys.version_info[:2]
    text = f"Python {platform.python_version()}"
    return Finding.of(
        "python", text, version >= LEAST_PYTHON, f"take Python {'.'.join(map(str, LEAST_PYTHON))} or newer"
    )


def torch_build() -> Finding:
    """torch's version."""
    import torch

    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    built = "for CUDA " + torch.version.cuda if torch.version.cuda else "for CPUs alone"
    least = ".".join(map(str, LEAST_TORCH))
    return Finding.of(
        "torch", f"torch {torch.__version__}, built {built}", version >= LEAST_TORCH, f"install torch {least}"
    )


def gpus() -> Iterator[Finding]:
    """GPUs that torch can use, and whether there are some that it cannot."""
    import torch

    if not torch.cuda.is_available():
        if not _GPU.exists():
            yield Finding(check="gpu", text="none; work runs on CPU cores")
        elif torch.version.cuda is None:
            yield Finding(
                check="gpu",
                text=f"{_GPU} is there, but torch is built for CPUs",
                state="warning",
                next_step="install torch's CUDA build",
            )
        else:
            yield Finding(
                check="gpu",
                text=f"{_GPU} is there, but torch {torch.__version__} cannot use it (CUDA {torch.version.cuda})",
                state="warning",
                next_step="update the NVIDIA driver, or install a torch for the CUDA version it has; see nvidia-smi",
            )
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, whole = torch.cuda.mem_get_info(number)
        text = f"{number}: {about.name}, {free / GB:.0f} of {whole / GB:.0f} GB free"
        busy = free < whole / 2
        yield Finding(
            check="gpu",
            text=text,
            state="warning" if busy else "ok",
            next_step="others use this GPU: choose among them with CUDA_VISIBLE_DEVICES" if busy else "",
        )


def cores_and_memory() -> Iterator[Finding]:
    """CPU cores and memory that this process may use."""
    yield Finding(check="cpu", text=f"{cpu_cores()} cores")
    memory = total() / GB
    yield Finding.of(
        "memory", f"{memory:.1f} GB", memory >= LEAST_MEMORY_GB, "use ‹workers=0› and a small ‹memory_gb›", warns=True
    )


def ray_install() -> Finding:
    """Ray's version; it is not imported."""
    try:
        return Finding(check="ray", text=f"ray {importlib.metadata.version('ray')}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            check="ray",
            text="not installed",
            state="warning",
            next_step="pip install ray, or work in one process (‹workers=0›)",
        )


def shared_memory() -> Finding:
    """Room that Ray's object store and data loaders take."""
    if not _SHARED.is_dir():
        return Finding(
            check="shared memory",
            text=f"no {_SHARED}",
            state="warning",
            next_step="Ray will use files in its temp folder, more slowly",
        )
    size = shutil.disk_usage(_SHARED).total / GB
    return Finding.of(
        "shared memory",
        f"{size:.1f} GB in {_SHARED}",
        size >= LEAST_SHARED_GB,
        "start the container with 'docker run --shm-size=2g' or more, or work without Ray (‹workers=0›)",
        warns=True,
    )


def temp_folder() -> Iterator[Finding]:
    """Room for temporary files, and what runs that were killed have left there."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free / GB
    yield Finding.of(
        "temp folder", f"{free:.1f} GB free in {folder}", free >= LEAST_DISK_GB, "free some, or set TMPDIR", warns=True
    )
    old = time.time() - LEFT_AFTER_S
    left = [path for path in folder.glob("zipbatch-*") if path.stat(follow_symlinks=False).st_mtime < old]
    if left:
        named = ", ".join(path.name for path in left[:3]) + (", …" if len(left) > 3 else "")
        step = "remove them if no run is using them"
        yield Finding(
            check="temp folder",
            text=f"{len(left)} folders of runs that were killed: {named}",
            state="warning",
            next_step=step,
        )


def open_files() -> Finding:
    """How many files a process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding.of(
        "open files", f"at most {limit}", limit >= LEAST_OPEN_FILES, "raise it: ulimit -n 4096", warns=True
    )
