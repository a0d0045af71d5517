"""A card for a student that leaves its run: README.md with the metadata of the Hugging Face hub, of the run's facts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path

from dataset.class_names import names_for_people
from dataset.config import STEP
from export.check import FEWEST, LARGEST, OTHERS, Checked, rows_of
from export.facts import Facts
from export.student import Student
from export.usage import usage
from utils.text import counted, printable

_METRICS = {"top1": "accuracy", "top5": "accuracy", "mAP": "mean_average_precision", "AP": "mean_average_precision"}
_AT_EACH_END = 5  # classes of the table, best and worst
_NOT_SCORES = ("epoch", "step", "images", "seconds", "time")


def about_of(student: Student, facts: Facts) -> dict[str, str]:
    """Notes that go into the files themselves, by name; JSON where a value has parts."""
    task, settings = student.settings.made_task(), student.settings
    side, normalization = settings.data.input_size, student.network.normalization
    about = {
        "run": facts.name,
        "method": facts.method,
        "network": settings.student.name,
        "task": settings.task,
        "classes": json.dumps(student.classes),
        "names": json.dumps(names_for_people(student.classes)),
        "normalization": json.dumps({"mean": normalization.mean, "std": normalization.std}),
        "shown": shown(student),
        "data": json.dumps(facts.data),
        "scores": json.dumps(_finite(facts.scores)),
        "settings": json.dumps(settings.as_exported()),
    }
    if task.detects:
        return about | {
            "input": f"images uint8 {_canvas(student)}, RGB, 0 to 255; sizes int64 [batch, 2], height and width of "
            "each in its canvas, from the top left corner; a program (.pt2, .onnx) normalises for itself",
            "output": _reading(student),
        }
    return about | {
        "input_size": str(side),
        "input": f"uint8 [batch, 3, {side}, {side}], RGB, 0 to 255; a program (.pt2, .onnx) normalises for itself, "
        "weights alone want (pixels / 255 - mean) / std",
        "output": _reading(student),
    }


def shown(student: Student) -> str:
    """How an image becomes what the network is shown."""
    data = student.settings.data
    if data.val_crop == "short_side":
        how = f"its short side resized to {data.val_resize} pixels, its long side to at most {data.longest_side}"
    elif data.val_crop == "squash":
        how = f"resized to {data.input_size} x {data.input_size} pixels, whatever its shape"
    else:
        how = (
            f"its short side resized to {data.val_resize} pixels, then {data.input_size} x {data.input_size} pixels "
            "cut out of the middle"
        )
    return f"RGB, {how}; bilinear with antialiasing, as Pillow resizes; orientation tags (EXIF) are ignored"


def card(student: Student, facts: Facts, checked: Checked, formats: Collection[str], run: Path) -> str:
    """README.md of an exported folder.

    Args:
        student: as it was exported.
        facts: of its run.
        checked: what was compared.
        formats: what there is, of `export.formats.FILES`.
        run: whose table of classes is quoted.
    """
    primary = student.settings.made_task().primary
    sections = [
        _metadata(student, facts, formats),
        f"# {printable(facts.name)}\n",
        _headline(student, facts, primary),
        "## Use\n",
        *_use(student, formats),
        "## What goes in and comes out\n",
        *_interface(student),
        "## How it was made\n",
        *_making(facts),
        "## Scores\n",
        *_scores(facts, checked, primary),
        *_classes(student, checked, run),
        "## Limits\n",
        *_limits(student, facts),
    ]
    return "\n".join(sections)


def _headline(student: Student, facts: Facts, primary: str) -> str:
    task, many = student.settings.made_task(), counted(len(student.classes), "class")
    what = f"sorts images into {many}"
    if student.output != "logits":
        what = "makes features of images, without a classifier"
    elif task.detects:
        what = f"finds objects of {many}"
    elif task.logits == "sigmoid":
        what = f"says which of {many} are in an image"
    teachers = " and ".join(f"`{name}`" for name, _ in facts.teachers)
    taught = f", trained with {teachers} as teacher" if teachers else ""
    scored, images = "", counted(facts.data["val"]["images"], "validation image")
    if math.isfinite(score := facts.scores.get(primary, math.nan)):
        scored = f" It scored {primary} {score:.2f} % on {images} of `{facts.data_name}`."
    return f"A `{student.settings.student.name}` that {what}{taught}.{scored}\n"


def _metadata(student: Student, facts: Facts, formats: Collection[str]) -> str:
    """The head of the card as YAML, of which JSON is a part; the licence is the user's to choose."""
    task = student.settings.made_task()
    kind = "object-detection" if task.detects else "image-classification"
    kind = kind if student.output == "logits" else "image-feature-extraction"
    name = student.settings.student.name
    values = {name: value for name, value in facts.scores.items() if name in (task.primary, *_METRICS)}
    metrics = [
        {"type": _METRICS.get(score, score), "name": score, "value": round(value, 4)}
        for score, value in values.items()
        if math.isfinite(value)
    ]
    data = {"name": facts.data_name, "type": facts.data_name, "split": "validation"}
    lines = [
        "---",
        "# license: apache-2.0    yours to choose: see Limits",
        f"library_name: {'timm' if name.startswith('timm/') else 'pytorch'}",
        f"pipeline_tag: {kind}",
        f"tags: {json.dumps([kind, 'knowledge-distillation', 'limbeck', *(['onnx'] if 'onnx' in formats else [])])}",
        f"datasets: {json.dumps([facts.data_name])}    # its folder's name; put the hub's name in its place",
        f"metrics: {json.dumps(sorted({one['type'] for one in metrics}))}",
        "model-index:",
        f"- name: {json.dumps(facts.name)}",
        "  results:",
        f"  - task: {json.dumps({'type': kind})}",
        f"    dataset: {json.dumps(data)}",
        f"    metrics: {json.dumps(metrics)}",
        "---\n",
    ]
    return "\n".join(lines)


def _use(student: Student, formats: Collection[str]) -> list[str]:
    blocks = [f"{head}:\n\n```python\n{lines}\n```\n" for head, lines in usage(student, formats)]
    return [
        *blocks,
        "With a checkout of Limbeck, on files and folders, in the very pixels of validation:\n",
        "    python -m tools.predict FOLDER/OF/THIS/CARD image.jpg folder/\n",
    ]


def _interface(student: Student) -> list[str]:
    task, side = student.settings.made_task(), student.settings.data.input_size
    mean, std = student.network.normalization
    normalised = f"mean {[*mean]}, standard deviation {[*std]} of pixels in [0, 1]"
    lines = [f"- An image is {shown(student)}."]
    if task.detects:
        lines += [
            f"- `model.safetensors` has the names of torchvision's `{type(student.network.network).__name__}`, and "
            f"wants {normalised}.",
            "- Its output 0 is background (of a one-stage detector never a class), output k + 1 the k-th of the "
            "classes. torchvision's class decodes boxes, drops those below its score threshold and those that overlap "
            "a better one of the same class, and scales the rest back to the image.",
            f"- The programs take `images`, uint8 {_canvas(student)}, RGB, 0 to 255, any batch, and `sizes`, int64 "
            "[batch, 2], height and width of each image, whose top left corner is that of its canvas. They normalise, "
            f"decode and drop for themselves, and give {_reading(student)}.",
        ]
    else:
        lines += [
            f"- The programs take `images`, uint8 [batch, 3, {side}, {side}], RGB, 0 to 255, any batch, and normalise "
            f"for themselves ({normalised}). They give {_reading(student)}.",
            f"- `model.safetensors` alone wants normalised input: {normalised}.",
        ]
    names = ", ".join(map(printable, names_for_people(student.classes)[:10]))
    more = f", and {len(student.classes) - 10:,} more" if len(student.classes) > 10 else ""
    return [
        *lines,
        f"- The outputs in order: {names}{more}. Each file has all of them in its notes: `names`, and `classes`, as "
        "the data spells them.\n",
    ]


def _reading(student: Student) -> str:
    """What programs give, and how it is read."""
    task, count = student.settings.made_task(), student.network.num_classes
    if task.detects:
        most = student.settings.student.detector.detections
        return (
            f"`boxes`, float32 [batch, {most}, 4], x1, y1, x2, y2 in pixels of the canvas, `scores`, float32 "
            f"[batch, {most}], and `classes`, int64 [batch, {most}], best first; zeros and class -1 where there is none"
        )
    if student.output != "logits":
        return f"`{student.output}`, float32 [batch, D]: images are as alike as the cosine of these is large"
    if task.logits == "sigmoid":
        threshold = f"scores count those of {getattr(task, 'threshold', 0.5):g} or more"
        return f"`logits`, float32 [batch, {count}]: a sigmoid makes each the probability of its class; {threshold}"
    return f"`logits`, float32 [batch, {count}]: a softmax makes them shares of the classes"


def _canvas(student: Student) -> str:
    """The shape of what the programs of a detector take."""
    data = student.settings.data
    if data.val_crop == "short_side":
        return f"[batch, 3, height, width], both multiples of {STEP}"
    return f"[batch, 3, {data.input_size}, {data.input_size}]"


def _making(facts: Facts) -> list[str]:
    splits = [
        f"{name}: {counted(split['images'], 'image')}, {counted(split['classes'], 'class')}, SHA-256 {split['sha256']}"
        for name, split in facts.data.items()
    ]
    rows = [
        *(("trained on", phase) for phase in facts.phases),
        *(("teacher", f"{name}, {weights}") for name, weights in facts.teachers),
        *((f"data `{facts.data_name}`", split) for split in splits),
        *(("with", line) for line in facts.environment),
    ]
    return [
        "| | |\n|---|---|",
        *(f"| {name} | {printable(value).replace('|', '/')} |" for name, value in rows),
        f"\nCommand:\n\n    {facts.command}\n",
    ]


def _scores(facts: Facts, checked: Checked, primary: str) -> list[str]:
    values = {name: value for name, value in facts.scores.items() if name not in _NOT_SCORES}
    scores = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if math.isfinite(value))
    points = "" if checked.ranked else f", or {checked.allowed:g} points of {primary},"
    bound = f"More than {LARGEST:g} of the largest value{points} would have been an error."
    if checked.detects:
        bound = (
            f"A detection is another one where its class differs, or by more than {LARGEST:g} its score, or its box by "
            f"that share of the longer side of the canvas. Others that are more than {FEWEST} and more than "
            f"{100 * OTHERS:g} % of all{points} would have been an error."
        )
    return [
        f"On {counted(facts.data['val']['images'], 'validation image')}, as the run logged them (percent, but for the "
        f"loss): {scores}.\n",
        f"What was exported was compared with the student on {counted(checked.images, 'validation image')}, on a CPU "
        f"in float32. {bound}\n",
        _markdown(rows_of(checked, primary, facts.scores.get(primary))),
    ]


def _classes(student: Student, checked: Checked, run: Path) -> list[str]:
    """The table of classes: all of a few, else the best and the worst."""
    head, rows = _by_class(student, checked, run / "per_class.csv")
    rows.sort(key=lambda row: -float(row[-1]))
    text = f"By class, {counted(len(rows), 'class')} with images, best first:\n"
    if len(rows) > 2 * _AT_EACH_END:
        text = f"Of {counted(len(rows), 'class')} with images, the {_AT_EACH_END} best and the {_AT_EACH_END} worst:\n"
        rows = [*rows[:_AT_EACH_END], *rows[-_AT_EACH_END:]]
    return [text, _markdown([head, *rows])] if rows else []


def _by_class(student: Student, checked: Checked, path: Path) -> tuple[list[str], list[list[str]]]:
    if (seen := checked.compared[0].by_class) is not None:
        rows = [(*row, name) for row, name in zip(seen.tolist(), names_for_people(student.classes))]
        return ["class", "images", "top1"], [
            [printable(name), str(images), f"{100 * right / images:.2f}"] for images, right, name in rows if images
        ]
    if not path.exists():
        return [], []
    table = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    count = "objects" if "objects" in table[0] else "positives"
    score = next(column for column in table[0] if column.startswith("AP"))
    return ["class", count, score], [
        [row["class"], row[count], f"{float(row[score]):.2f}"] for row in table[:-1] if row[score]
    ]


def _limits(student: Student, facts: Facts) -> list[str]:
    task = student.settings.made_task()
    knows = f"It knows {counted(len(student.classes), 'class')} and nothing else."
    if student.output != "logits":
        knows = "Its features are those that its teacher has for such images as it was trained on."
    elif not task.detects and task.logits != "sigmoid":
        knows += " An image of something else gets one of its classes all the same."
    return [
        f"- {knows}",
        f"- It was trained on {counted(facts.data['train']['images'], 'image')} alone; what these lack or show in "
        "one way only, it does not know. Which epoch is the best was decided on the validation images that the scores "
        "above are of.",
        "- Its probabilities are not calibrated.",
        "- No licence is stated: that of the weights depends on the data, on the teacher and on you.\n",
    ]


def _finite(scores: dict[str, float]) -> dict[str, float | str]:
    return {name: value for name, value in scores.items() if isinstance(value, str) or math.isfinite(value)}


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = ([printable(cell).replace("|", "/") for cell in row] for row in rows)
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others)]
    return "\n".join(lines) + "\n"
