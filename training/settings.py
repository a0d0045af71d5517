"""The settings of a run that are of no phase in particular."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.distributed import Ranks
from utils.errors import UsageError
from utils.settings import setting


@dataclass(frozen=True)
class TrainConfig:
    """How long, in which precision, and what is kept."""

    seed: int = setting(0, least=0, most=2**31 - 1)
    """of the initial weights, the order, the views and dropout"""
    amp: Literal["bf16", "fp16", "off"] = setting("off", affects_result=False, also=("precision", "fp16", "bf16"))
    """precision of convolutions and matrix products"""
    channels_last: bool = setting(True, affects_result=False)
    """memory layout of convolutions"""
    compile: bool = setting(False, affects_result=False)
    """torch.compile the networks and the loss into one graph"""
    accumulate: int = setting(1, least=1, affects_result=False, also=("gradient_accumulation_steps",))
    """parts that each rank's batch is worked through in, to fit the memory; batch norm sees a part at a time"""
    sync_bn: bool = False
    """batch norm over the ranks' samples together (GPUs only)"""
    ema_decay: float | None = setting(None, least=0, below=1, also=("ema",))
    """keep an exponential moving average of the student with this decay a step, evaluate it too, and keep the better"""
    average_last: int = setting(0, least=0, most=10**6)
    """average the student's weights after each of the last epochs, as many as these, evaluate that at the end too, and
    keep the best; 0 averages nothing"""
    print_freq: int = setting(50, least=1, affects_result=False, also=("log_interval",))
    """steps between two lines of the log; each epoch ends with one"""
    checkpoint_steps: int = setting(1000, least=0, affects_result=False, also=("save_freq",))
    """steps between two checkpoints within an epoch, 0 for none; each epoch ends with one"""
    output_path: str = setting("runs", affects_result=False, also=("output", "output_dir", "save_dir"))
    """folder that holds the run folders"""
    timeout_minutes: float = setting(10.0, least=0.1, most=525_600, affects_result=False, also=("timeout",))
    """how long a rank waits for the others before it gives up"""
    wandb_project: str | None = setting(None, affects_result=False, also=("wandb",))
    """also log to this Weights & Biases project"""


def check_machine(params: TrainConfig, batch_size: int, ranks: Ranks) -> None:
    """Whether the settings suit the ranks.

    Raises:
        UsageError: the batch does not divide over ranks and accumulated parts, or sync_bn is asked for without GPUs.
    """
    if batch_size % (ranks.world * params.accumulate):
        parts = f"{ranks.world} ranks x {params.accumulate} accumulated parts"
        raise UsageError(f"data.batch_size={batch_size} does not divide over {parts}")
    if params.sync_bn and ranks.world > 1 and ranks.device.type != "cuda":
        raise UsageError("train_params.sync_bn works on GPUs only")
