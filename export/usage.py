"""Lines of Python that use what was exported, with packages that anybody has. K classes."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
import torchvision
from torch import nn

from dataset.config import STEP, DataConfig
from export.student import Student
from models.detectors.names import parsed
from models.detectors.settings import DetectorConfig

_WITH = {
    "onnx": """import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["names"])
(logits,) = session.run(None, {{"images": pixels("image.jpg")[None]}})
{show}""",
    "pt2": """import json

import numpy as np
import torch

about = {{"about.json": ""}}
program = torch.export.load("model.pt2", extra_files=about).module()
names = json.loads(json.loads(about["about.json"])["names"])
logits = program(torch.from_numpy(pixels("image.jpg")[None])).detach().numpy()
{show}""",
    "safetensors": """import json

import numpy as np
import torch
{imports}
from safetensors import safe_open
from safetensors.torch import load_file

with safe_open("model.safetensors", "pt") as file:
    about = file.metadata()
names, normalization = json.loads(about["names"]), json.loads(about["normalization"])
mean, std = (torch.tensor(normalization[part]).view(3, 1, 1) for part in ("mean", "std"))
model = {make}
model.load_state_dict(load_file("model.safetensors"))
model.eval()
with torch.no_grad():
    logits = model(((torch.from_numpy(pixels("image.jpg")) / 255 - mean) / std)[None]).numpy()
{show}""",
}
_SHOW = {
    "softmax": """shares = np.exp(logits[0] - logits[0].max())
shares /= shares.sum()
for number in shares.argsort()[::-1][:5]:
    print(f"{names[number]} {shares[number]:.1%}")""",
    "feature": "unit = logits[0] / np.linalg.norm(logits[0])  # images are as alike as the product of these is large",
    "sigmoid": """shares = 1 / (1 + np.exp(-logits[0]))
print([names[number] for number in np.flatnonzero(shares >= THRESHOLD)])""",
}
_DETECT = """import json

import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

with safe_open("model.safetensors", "pt") as file:
    about = file.metadata()
names, normalization = json.loads(about["names"]), json.loads(about["normalization"])
model = torchvision.models.get_model(
    "{name}", weights=None, weights_backbone=None, num_classes=1 + len(names),
    min_size={short}, max_size={long}, image_mean=normalization["mean"], image_std=normalization["std"],
)
model.load_state_dict(load_file("model.safetensors"))
model.eval()
image = torchvision.transforms.functional.to_tensor(Image.open("image.jpg").convert("RGB"))
with torch.no_grad():
    found = model([image])[0]
for box, score, label in zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()):
    if label and score >= 0.5:
        print(names[label - 1], round(score, 2), [round(edge) for edge in box])"""
_FOUND_WITH = {
    "onnx": """import json

import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["names"])
images, sizes, scale = canvas("image.jpg")
boxes, scores, classes = session.run(None, {"images": images, "sizes": sizes})
""",
    "pt2": """import json

import torch
import torchvision  # whose operators a program may have

about = {"about.json": ""}
program = torch.export.load("model.pt2", extra_files=about).module(check_guards=False)  # they refuse small canvases
names = json.loads(json.loads(about["about.json"])["names"])
images, sizes, scale = canvas("image.jpg")
boxes, scores, classes = (one.numpy() for one in program(torch.from_numpy(images), torch.from_numpy(sizes)))
""",
}
_SHOW_FOUND = """for box, score, number in zip(boxes[0] * scale, scores[0], classes[0]):
    if score >= 0.5:
        print(names[number], round(float(score), 2), [round(float(edge)) for edge in box])"""
_HEADLINES = {
    "onnx": "With ONNX Runtime (`pip install onnxruntime pillow`)",
    "pt2": "With PyTorch alone (`pip install torch pillow`)",
    "safetensors": "The weights in {library}'s own network, to train on (`pip install {package} safetensors pillow`)",
}
_HEADLINES_FOUND = {
    "onnx": _HEADLINES["onnx"],
    "pt2": "With PyTorch (`pip install torch torchvision pillow`)",
}


def usage(student: Student, formats: Collection[str]) -> list[tuple[str, str]]:
    """Headlines and the Python that stands below each, in order; none where only Limbeck builds the network.

    Args:
        student: as it was exported.
        formats: what there is, of `export.formats.FILES`.
    """
    task = student.settings.made_task()
    if task.detects:
        return _of_detector(student, formats)
    show = _SHOW[("sigmoid" if task.logits == "sigmoid" else "softmax") if student.output == "logits" else "feature"]
    show = show.replace("THRESHOLD", str(getattr(task, "threshold", 0.5)))
    library, make = _made(student) or ("", "")
    blocks = [("What it is shown (`pip install pillow numpy`)", pixels(student.settings.data))]
    for name in ("onnx", "pt2", "safetensors"):
        if name in formats and (name != "safetensors" or (library and student.output == "logits")):
            lines = _WITH[name].format(show=show, imports=f"import {library}", make=make)
            lines = lines if student.output == "logits" else lines.replace("logits", "features")
            blocks.append((_HEADLINES[name].format(library=library, package=library), lines))
    return blocks if len(blocks) > 1 else []


def pixels(data: DataConfig) -> str:
    """Python of a function that shows an image file as validation did, with Pillow, to within rounding."""
    side = data.input_size
    head = 'def pixels(path):  # uint8 [3, height, width], RGB\n    image = Image.open(path).convert("RGB")'
    if data.val_crop == "squash":
        steps = f"    image = image.resize(({side}, {side}), Image.Resampling.BILINEAR)"
    elif data.val_crop == "short_side":
        fits = f"long * {data.val_resize} <= {data.longest_side} * short"
        steps = f"""    short, long = sorted(image.size)
    new, old = ({data.val_resize}, short) if {fits} else ({data.longest_side}, long)
    image = image.resize([max(1, length * new // old) for length in image.size], Image.Resampling.BILINEAR)"""
    else:
        steps = f"""    size = [length * {data.val_resize} // min(image.size) for length in image.size]
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = ({_start("length", side, data.val_resize)} for length in image.size)
    image = image.crop((left, top, left + {side}, top + {side}))"""
    end = "    return np.asarray(image).transpose(2, 0, 1).copy()"
    return f"import numpy as np\nfrom PIL import Image\n\n\n{head}\n{steps}\n{end}"


def _canvas(data: DataConfig) -> str:
    """Python of a function that lays what `pixels` shows on a canvas."""
    grown = "shown.shape[1:]"
    if data.val_crop == "short_side":
        grown = f"[-(-length // {STEP}) * {STEP} for length in {grown}]"
    scale = """
    with Image.open(path) as image:
        scale = np.tile(np.array(image.size) / shown.shape[:0:-1], 2)"""
    if data.val_crop == "center":
        scale = "\n    scale = 1  # they stay in pixels of the crop"
    return f"""def canvas(path):  # images and sizes, and what makes boxes those of the file
    shown = pixels(path)
    height, width = shown.shape[1:]
    images = np.zeros((1, 3, *{grown}), np.uint8)
    images[0, :, :height, :width] = shown{scale}
    return images, np.array([[height, width]], np.int64), scale"""


def _start(length: str, side: int, resized: int) -> str:
    """Where the crop begins; an image that is smaller than the crop stands in the middle of black."""
    inside = f"round(({length} - {side}) / 2)"
    return inside if resized >= side else f"{inside} if {length} >= {side} else -(({side} - {length}) // 2)"


def _made(student: Student) -> tuple[str, str] | None:
    """The library whose network the exported weights fit as they are, and the call that makes it; None without one."""
    name, count = student.settings.student.name, student.network.num_classes
    library = "timm" if name.startswith("timm/") else "torchvision"
    bare = name.removeprefix("timm/")
    if library == "timm":
        import timm

        make, called = timm.create_model, "timm.create_model"
    elif bare in torchvision.models.list_models(module=torchvision.models):
        make, called = torchvision.models.get_model, "torchvision.models.get_model"
    else:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how long it takes to draw weights
        twin = make(bare, num_classes=count)
    if _shapes(twin) != _shapes(student.network.network):  # a head of ours, branches that are merged, another size
        return None
    return library, f'{called}("{bare}", num_classes={count})'


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _of_detector(student: Student, formats: Collection[str]) -> list[tuple[str, str]]:
    data = student.settings.data
    programs = [
        (_HEADLINES_FOUND[name], _FOUND_WITH[name] + _SHOW_FOUND) for name in ("onnx", "pt2") if name in formats
    ]
    blocks = [("What it is shown (`pip install pillow numpy`)", f"{pixels(data)}\n\n\n{_canvas(data)}")]
    blocks = [*blocks, *programs] if programs else []
    if lines := _detector(student):
        blocks.append((_HEADLINES["safetensors"].format(library="torchvision", package="torchvision"), lines))
    return blocks


def _detector(student: Student) -> str:
    """Python that looks at an image with torchvision's own class; empty where it makes no such detector."""
    config, data = student.settings.student, student.settings.data
    noted = getattr(student.network.network.state_dict(), "_metadata", {}).get("", {})
    if not parsed(config.name).is_published or config.detector != DetectorConfig() or "norm_epsilon" in noted:
        return ""
    return _DETECT.format(name=config.name, short=data.val_resize, long=data.longest_side)
