"""What a benchmark ran on, in one line."""

import platform
from pathlib import Path

import joblib
import torch

from penchant.tagging.precision import matmul_gflops


def describe() -> str:
    """Processor, cores, and the measured speed of matrix products."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = ", ".join(f"{name} {matmul_gflops(dtype, device):.0f}" for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)))
    gpu = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    return (
        f"{names[0] if names else platform.machine()}, {joblib.cpu_count()} cores{gpu}; {speeds} GFLOP/s; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
