"""Real worker processes, over gloo on loopback: each does the same task with its rank."""

import os
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing


def together(task, size, folder, *arguments, seconds=60):
    """What a task gives on each of some workers: ``task(rank, size, *arguments)``.

    Args:
        task: a function of a module, which each worker imports.
        size: how many workers.
        folder: an empty one, for what they leave.
        *arguments: of the task.
        seconds: that one waits for another.
    """
    multiprocessing.spawn(_work, (size, folder, seconds, task, arguments), nprocs=size)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _work(rank, size, folder, seconds, task, arguments):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )
    try:
        torch.save(task(rank, size, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
