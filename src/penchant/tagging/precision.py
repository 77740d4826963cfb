"""Which number format this hardware multiplies fastest, found by trying."""

import time

import torch


def matmul_gflops(dtype: torch.dtype, device: torch.device, seconds: float = 0.5, size: int | None = None) -> float:
    """Speed of the fastest of the `size`-square matrix products that `seconds` hold, in 10⁹ floating-point operations per second.

    The fastest one, as any other may have shared its core with somebody.
    Absent, `size` is 512 on a CPU, and on an accelerator 4096, where a small product would measure how fast it is started.
    """
    size = size or (512 if device.type == "cpu" else 4096)
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)

    def product() -> None:
        torch.mm(left, right)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    product()
    start, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        product()
        fastest = min(fastest, time.perf_counter() - begun)
    return 2.0 * size**3 / fastest / 1e9


def measured_precision(device: torch.device) -> tuple[str, str]:
    """`bf16` where it is at least 1.3 times as fast as fp32, else `no`; and a sentence with the two speeds."""
    fp32, bf16 = (matmul_gflops(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    chosen = "bf16" if bf16 >= 1.3 * fp32 else "no"
    return (
        chosen,
        f"{device.type} multiplies {fp32:.0f} GFLOP/s in fp32 and {bf16:.0f} in bf16: {'bf16 autocast' if chosen == 'bf16' else 'plain fp32'}",
    )
