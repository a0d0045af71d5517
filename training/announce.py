"""What a run prints before it begins: what learns from what, how, for how long, and what does not suit the machine."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from dataset.loader import DataConfig, TrainLoader
from dataset.store.samples import Samples
from knowledge_distiller import Term
from models.zoo import Network, NetworkConfig
from training.loop import TrainConfig, Trainer
from training.optimizer import OptimConfig
from training.phases import Phase
from training.stored import Stored
from utils.distributed import Ranks
from utils.text import counted

_LINES, _COLUMNS = 20, 80
_UNITS = {1e12: " T", 1e9: " G", 1e6: " M", 1e3: " k"}


def described(
    data: DataConfig,
    splits: tuple[Samples, Samples],
    configs: Mapping[str, NetworkConfig],
    trainer: Trainer,
    unused_settings: Iterable[str] = (),
) -> list[str]:
    """Entries of a line or several, together at most 20 lines of 80 columns.

    Args:
        data: its settings.
        splits: training and validation.
        configs: of the student, by the name `student`, and of the teachers.
        trainer: before its first step.
        unused_settings: remarks on settings that have no effect.
    """
    distiller, params, ranks = trainer.state.distiller, trainer.params, trainer.ranks
    phases = list(trainer.state.phases.values())
    networks: dict[str, object] = {"student": distiller.student}
    stored: dict[str, str] = {}
    for name, teacher in distiller.teachers.items():
        if isinstance(teacher, Stored):
            stored[name] = f"{configs[name].name}, outputs in {teacher.store.path}, {teacher.record.size} bytes a view"
        else:
            networks[name] = teacher.network
    train, val = splits
    images = f"{len(train):,} + {counted(len(val), 'image')}"
    lines = [
        ("data", f"{images} of {counted(len(train.classes), 'class')} in {data.data_path}"),
        ("crop", _crop(data)),
        *((name, _network(one, configs[name], data.val_side, ranks.device)) for name, one in networks.items()),
        *stored.items(),
        *(("then" if number else "loss", _loss(phase, len(phases) > 1)) for number, phase in enumerate(phases)),
        ("optimizer", _optimizer(phases[-1])),
        ("schedule", _schedule(phases[-1].optim)),
        ("length", _length(phases, trainer.loader)),
        ("device", _device(params, ranks)),
        *(("note", note) for note in (*unused_settings, *_late(phases[-1]), *_notes(data, params, ranks))),
    ]
    printed = [line for title, text in lines for line in _wrapped(title, text)]
    if len(printed) > _LINES:
        printed = [*printed[: _LINES - 1], *_wrapped("", f"and {len(printed) - _LINES + 1} lines more")]
    return re.split(r"\n(?=  \S)", "\n".join(printed))  # other lines of an entry stand further in


def _crop(data: DataConfig) -> str:
    extras = {
        "mirrored": data.flip,
        f"colour jitter {data.color_jitter}": data.color_jitter,
        f"cutout {data.cutout}": data.cutout,
        "RandAugment": data.randaugment,
        f"auto_augment {data.auto_augment}": data.auto_augment != "none",
        f"random erasing {data.random_erase}": data.random_erase,
        f"each image {data.repeats} times a batch": data.repeats > 1,
        f"mixup {data.mixup}": data.mixup,
        f"cutmix {data.cutmix}": data.cutmix,
        "a strong view beside it": data.strong_view,
    }
    pixels = f"{data.input_size}"
    if data.type_of_data_aug == "short_side":
        drawn = " to ".join(map(str, dict.fromkeys((data.short_sides[0], data.short_sides[-1]))))
        pixels = f"{drawn}, the long side at most {data.longest_side}"
        extras[f"crops of at most {data.largest_crop}"] = data.largest_crop
    parts = [f"{data.type_of_data_aug} at {pixels} pixels", *(name for name, on in extras.items() if on)]
    return ", ".join(parts)


def _network(network: object, config: NetworkConfig, side: int, device: torch.device) -> str:
    assert isinstance(network, Network)
    count = sum(parameter.numel() for parameter in network.parameters())
    weights = "random weights" if config.weights == "none" else f"weights {config.weights}"
    work = multiply_adds(network, side, device)
    return f"{config.name}, {_short(count)} parameters, {_short(work)} multiply-adds, {weights}"


@torch.no_grad()
def multiply_adds(network: Network, side: int, device: torch.device) -> int:
    """Of the convolutions and matrix products that one image of ``side`` x ``side`` pixels takes."""
    was_training = network.training
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:
        network.eval().predict(images)
    network.train(was_training)
    return counter.get_total_flops() // 2


def _loss(phase: Phase, several: bool) -> str:
    terms = " + ".join(_term(name, term) for name, term in phase.terms.items())
    return f"{counted(phase.epochs, 'epoch')} of {terms}" if several else terms


def _term(name: str, term: Term) -> str:
    options = ", ".join(f"{option} {value}" for option, value in term.options.items())
    named = name if name == term.objective else f"{name} ({term.objective})"
    ramp = " ramped" if term.ramp else ""
    return (f"{term.weight:g} " if term.weight != 1 else "") + named + (f" [{options}]" if options else "") + ramp


def _optimizer(phase: Phase) -> str:
    optim = phase.optim
    own = f"betas {optim.betas}" if optim.optimizer in ("adam", "adamw") else f"momentum {optim.momentum:g}"
    clip = f", gradients clipped at {optim.grad_clip:g}" if optim.grad_clip is not None else ""
    trained = f", trains {', '.join(phase.trainable)}" if phase.trainable else ""
    return f"{optim.optimizer}, rate {optim.init_lr:g}, {own}, weight decay {optim.weight_decay:g}{clip}{trained}"


def _schedule(optim: OptimConfig) -> str:
    warmup = f"{counted(optim.warmup_epochs, 'epoch')} of warm-up, then " if optim.warmup_epochs else ""
    if optim.schedule == "onecycle":
        return f"one cycle of {counted(optim.cycle_epochs, 'epoch')}" if optim.cycle_epochs else "one cycle"
    if optim.schedule != "step":
        return f"{warmup}{optim.schedule} to {optim.min_lr:g}"
    after = ", ".join(map(str, optim.milestones))
    return f"{warmup}times {optim.lr_decay:g} after epochs {after}" if optim.milestones else f"{warmup}constant"


def _late(phase: Phase) -> Iterator[str]:
    """What of the schedule its epochs do not reach."""
    optim, epochs = phase.optim, counted(phase.epochs, "epoch")
    if optim.schedule == "step" and (late := [str(one) for one in optim.milestones if one >= phase.epochs]):
        yield f"optim.milestones={','.join(late)}: not reached within {epochs}"
    if optim.warmup_epochs >= phase.epochs:
        yield f"optim.warmup_epochs={optim.warmup_epochs:g} lasts for all of {epochs}"


def _length(phases: Sequence[Phase], loader: TrainLoader) -> str:
    epochs = sum(phase.epochs for phase in phases)
    steps, images = counted(epochs * loader.batches, "step"), counted(loader.batch_size, "image")
    return f"{counted(epochs, 'epoch')} of {loader.batches}: {steps} of {images}"


def _device(params: TrainConfig, ranks: Ranks) -> str:
    precision = "float32" if params.amp == "off" else params.amp
    on_gpu = ranks.device.type == "cuda"
    name = torch.cuda.get_device_name(ranks.device) if on_gpu else "CPU (no GPU found)"
    compiled = ", compiled" if params.compile else ""
    return f"{ranks.world} x {name}, {precision}{compiled}"


def _notes(data: DataConfig, params: TrainConfig, ranks: Ranks) -> Iterator[str]:
    """What is not set for this machine, or may not be meant."""
    if data.type_of_data_aug == "squash" and data.val_crop != "squash":
        yield "data.val_crop=center: validation shows the centre of images that training squashes"
    if data.val_crop == "center" and data.val_resize < data.input_size:
        yield f"data.val_resize={data.val_resize} gives validation images a black frame at {data.input_size} pixels"
    on_gpu = ranks.device.type == "cuda"
    if on_gpu and params.amp == "off" and torch.cuda.is_bf16_supported():
        yield "train_params.amp=bf16 is faster on this GPU"
    if on_gpu and not params.channels_last:
        yield "train_params.channels_last=true is faster on a GPU"
    if on_gpu and data.num_workers == 0:
        yield "data.num_workers=0: the GPU waits while images are decoded"
    local, cores = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), len(os.sched_getaffinity(0))
    if data.num_workers * local > cores:
        ranks_here = f" for each of {local} ranks" if local > 1 else ""
        yield f"data.num_workers={data.num_workers}{ranks_here} is more than the cores here, {cores}"


def _short(count: float) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS.items() if count >= unit), (1, ""))
    return f"{count / unit:.3g}{name}"


def _wrapped(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, initial_indent=f"  {title:10}", subsequent_indent=" " * 12)
