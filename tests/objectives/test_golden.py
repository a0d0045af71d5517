"""Values and gradients of the reference implementations (see the names of the files in `golden/`), in both precisions.

float64 agrees to 1e-9 of the largest element, float32 to five times the reference's own distance from float64.
"""

import json
import math

import golden_multi_label
import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.func import functional_call

from objectives import (
    ab,
    crd,
    fitnet,
    fsp,
    ft,
    kdsvd,
    labels,
    layers,
    logits,
    lshfm,
    maps,
    ofd,
    regions,
    relations,
    reviewkd,
    vid,
)
from training.dot import Dot

GOLDEN = ROOT / "tests/golden"


def stages(x, who):
    return [x[f"{who}{number}"] for number in range(sum(name.startswith(who) for name in x))]


def filled(module, values, *inputs):
    """The module's forward in the inputs' precision, with parameters and buffers that the inputs hold."""
    return functional_call(module.to(inputs[0][0].dtype), values, inputs)


def pairwise_objective(function, **names):
    """A function of student and teacher (and labels) whose options have other names in the files."""

    def call(p, x):
        options = {option: p[name] for option, name in names.items()}
        known = [x["target"]] if "labels" in function.__annotations__ else []
        return function(x["student"], x["teacher"], *known, **options)

    return call


def staged(function, **names):
    def call(p, x):
        options = {option: p[name] for option, name in names.items()}
        return function(stages(x, "student"), stages(x, "teacher"), **options)

    return call


def run_rkd(p, x):
    student, teacher = x["student"].flatten(1), x["teacher"].flatten(1)
    distance = relations.rkd_distance(student, teacher, squared=p["squared"])
    parts = {"dist": distance, "angle": relations.rkd_angle(student, teacher)}
    loss = p["distance_weight"] * parts["dist"] + p["angle_weight"] * parts["angle"]
    return loss, {name: parts[name] for name in parts if p[{"dist": "distance_weight"}.get(name, "angle_weight")]}


def run_sp(p, x):
    return sum(relations.sp(s, t) for s, t in zip(stages(x, "student"), stages(x, "teacher"), strict=True))


def run_kd(p, x):
    soft = logits.kd(x["student"], x["teacher"], temperature=p["T"])
    if "target" not in x:
        return soft
    hard = p["ce_weight"] * labels.cross_entropy(x["student"], x["target"])
    soft = p["kd_weight"] * soft
    return hard + soft, {"loss_ce": hard, "loss_kd": soft}


def run_wsld(p, x):
    hard = labels.cross_entropy(x["student"], x["target"])
    soft = logits.wsld(x["student"], x["teacher"], x["target"], temperature=p["T"])
    return hard + p["alpha"] * soft, {"hard": hard, "soft": soft}


def run_dkd(p, x):
    loss = logits.dkd(x["student"], x["teacher"], x["target"], alpha=p["alpha"], beta=p["beta"], temperature=p["T"])
    if "epoch" not in p:
        return loss
    hard = p["ce_weight"] * labels.cross_entropy(x["student"], x["target"])
    soft = min(p["epoch"] / p["warmup"], 1.0) * loss
    return hard + soft, {"loss_ce": hard, "loss_kd": soft}


def run_ab(p, x):
    module = ab.Ab(stages(x, "student"), stages(x, "teacher"), margin=p["margin"])
    return 3 / 1000 * module(stages(x, "student"), stages(x, "teacher"))


def run_ft(p, x):
    factors = [one.pow(p["p1"]).mean(1) for one in layers.same_size(x["student"], x["teacher"])]
    return ft.factor_distance(*factors, power=p["p2"])


def run_standardized(p, x):
    return logits.kd(logits.standardize(x["student"]), logits.standardize(x["teacher"]), temperature=p["T"])


def run_uskd(p, x):
    module = labels.Uskd(x["student"], x["feature"], alpha=p["alpha"], beta=p["beta"], mu=p["mu"])
    return filled(module, {"weak.weight": x["w"], "weak.bias": x["b"]}, x["student"], x["feature"], x["target"])


def run_vid(p, x):
    module = vid.Vid([x["student"]], [x["teacher"]], variance=p["init_pred_var"], epsilon=p["eps"])
    values = {f"means.0.{2 * number}.weight": x[f"w{number}"] for number in range(3)}
    scale = x["teacher"].new_full((x["teacher"].shape[1],), math.log(math.expm1(p["init_pred_var"] - p["eps"])))
    values["scales.0"] = x.get("log_scale", scale)
    return filled(module, values, [x["student"]], [x["teacher"]])


def run_ofd(p, x):
    if "margin" in x:
        return ofd.partial_l2(x["student"], x["teacher"], x["margin"])
    student, teacher = stages(x, "student"), stages(x, "teacher")
    norms = [nn.BatchNorm2d(t.shape[1]) for t in teacher]
    module = ofd.Ofd(student, teacher, norms, kernel_size=p["kernel_size"])
    values = {}
    for i in range(len(student)):
        connector = f"connectors.{i}"
        values |= {f"{connector}.0.weight": x[f"w{i}"], f"{connector}.1.weight": x[f"g{i}"]}
        values |= {f"{connector}.1.bias": x[f"b{i}"], f"margin{i}": x[f"margin{i}"]}
    return filled(module, values, student, teacher)


def run_fitnet(p, x):
    module = fitnet.FitNet([x["student"]], [x["teacher"]])
    values = {"regressor.0.weight": x["w"], "regressor.0.bias": x["wb"]}
    values |= {"regressor.1.weight": x["g"], "regressor.1.bias": x["b"]}
    return filled(module, values, [x["student"]], [x["teacher"]])


def run_reviewkd(p, x):
    student, teacher = stages(x, "student"), stages(x, "teacher")
    inputs = student[:-1], student[-1], teacher[:-1], teacher[-1]
    module = reviewkd.ReviewKD(*inputs)
    values = {}
    for i in range(len(student)):
        level = f"fusions.{i}"
        values |= {f"{level}.enter.0.weight": x[f"conv1_{i}"], f"{level}.leave.0.weight": x[f"conv2_{i}"]}
        for part, name in (("enter", "bn1"), ("leave", "bn2")):
            values |= {f"{level}.{part}.1.weight": x[f"{name}g_{i}"], f"{level}.{part}.1.bias": x[f"{name}b_{i}"]}
        if f"att_{i}" in x:
            values |= {f"{level}.attention.weight": x[f"att_{i}"], f"{level}.attention.bias": x[f"attb_{i}"]}
    hard = p["ce_weight"] * labels.cross_entropy(x["logits"], x["target"])
    soft = p["weight"] * min(p["epoch"] / p["warmup_epochs"], 1) * filled(module, values, *inputs)
    return hard + soft, {"loss_ce": hard, "loss_kd": soft}


def run_crd(p, x):
    module = crd.Crd(
        x["student"],
        x["teacher"],
        torch.arange(len(x["memory_s"])) % 2,
        dimensions=len(x["ws"]),
        temperature=p["T"],
        momentum=p["momentum"],
    ).to(x["student"].dtype)
    module.memory = torch.stack([x["memory_s"], x["memory_t"]]).detach()
    module.constants = torch.tensor([p["Z_s"], p["Z_t"]], dtype=x["student"].dtype).clamp(min=0)
    for name, value in {"student": "s", "teacher": "t"}.items():
        embed = getattr(module, f"embed_{name}")
        del embed.weight, embed.bias
        embed.weight, embed.bias = x[f"w{value}"], x[f"b{value}"]
    loss = module.contrast(x["student"], x["teacher"], x["index"], x["contrast_idx"])
    return loss, {"Z": module.constants, "memory_s_after": module.memory[0], "memory_t_after": module.memory[1]}


def run_lshfm(p, x):
    """With `distill` lsh or lshl2 (of all samples, or with _s of correct ones), or the `kind` of distance alone."""
    if p.get("kind") == "kl":
        return logits.kd(x["student"], x["teacher"], temperature=p["T"])
    batch, dimensions = x["student"].shape
    hashed = "weight" in x
    squared = p.get("with_l2", "lshl2" in p.get("distill", "")) if hashed else True
    module = lshfm.Lshfm(
        x["student"],
        x["teacher"],
        torch.eye(dimensions),
        hashes=len(x["weight"]) if hashed else 1,
        hash_distance={"BCE": "sign", "L1": "l1", "L2": "l2"}[p.get("LSH_loss", "BCE")] if hashed else "none",
        feature_distance=p.get("kind", "l2").removesuffix("_beta") if squared else "none",
        correct_only=p.get("distill", "").endswith("_s"),
    )
    teacher_logits = x.get("teacher_logits", torch.zeros(batch, 2))
    known = x.get("label", torch.zeros(batch, dtype=torch.long))
    values = {"weight": x["weight"], "bias": x["bias"]} if hashed else {}
    return p.get("beta", 1.0) * filled(module, values, x["student"], x["teacher"], teacher_logits, known)


def run_lshfm_windows(p, x):
    """A location is usable unless all of its anchors lie between the thresholds, -2 each."""
    student, teacher = stages(x, "student"), stages(x, "teacher")
    usable = x["matched_idx"].unflatten(1, (-1, p["anchors_per_location"])).sum(2) > -18
    features = "l2" if p["with_l2"] else "none"
    module = lshfm.LshfmWindows(student, teacher, x["weight"], hashes=len(x["weight"]), feature_distance=features)
    values = {"weight": x["weight"].view(len(x["weight"]), -1, 3, 3), "bias": x["bias"]}
    images = usable.any(1).sum().item()
    return p["beta"] * filled(module, values, student, teacher, usable) * images / (images + 1e-7)  # as there


RUN = golden_multi_label.RUN | {
    "ab": run_ab,
    "ft": run_ft,
    "at": staged(maps.at, power="p"),
    "cat_kd": pairwise_objective(regions.activation_distance, resolution="resolution", normalize="normalize"),
    "cc": lambda p, x: relations.consecutive(x["student"], x["teacher"]),
    "crd": run_crd,
    "dist": pairwise_objective(logits.dist, beta="beta", gamma="gamma", temperature="tau"),
    "dkd": run_dkd,
    "fitnet": run_fitnet,
    "fsp": staged(fsp.flow_distance),
    "kd": run_kd,
    "logit_std_kd": run_standardized,
    "lshfm_det_lsh": run_lshfm,
    "lshfm_l2_l1_kl": run_lshfm,
    "lshfm_lsh": run_lshfm,
    "lshfm_lsh_s": run_lshfm,
    "lshfm_retina_kd": run_lshfm_windows,
    "mlkd_batch": pairwise_objective(logits.batch_correlation, temperature="T"),
    "mlkd_class": pairwise_objective(logits.class_correlation, temperature="T"),
    "nkd": pairwise_objective(logits.nkd, gamma="gamma", temperature="T"),
    "nst": staged(maps.nst),
    "ofd": run_ofd,
    "pkt": pairwise_objective(relations.pkt, epsilon="eps"),
    "reviewkd_full": run_reviewkd,
    "reviewkd_hcl": staged(reviewkd.hcl),
    "rkd": run_rkd,
    "sdd_kd": pairwise_objective(regions.regional_kd, temperature="T"),
    "sp": run_sp,
    "uskd": run_uskd,
    "vid": run_vid,
    "wsld": run_wsld,
}


WITHOUT_GRADIENTS = ("cpsd_asl_single_label",)  # with smoothing the reference has none


def cases(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return [str(case) for case in arrays["cases"]]


def load(name, case, precision):
    """Parameters, inputs and expected arrays of a case."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    dtype = torch.float32 if precision == "f32" else torch.float64
    inputs, expected = {}, {}
    for key in arrays.files:
        if key.startswith(f"{case}.in."):
            value = torch.from_numpy(arrays[key])
            inputs[key.split(".in.")[1]] = value.to(dtype) if value.is_floating_point() else value
        elif key.startswith(f"{case}."):
            expected[key[len(case) + 1 :]] = arrays[key]
    for key in expected:
        if key.startswith(f"grad_{precision}."):
            inputs[key.split(".", 1)[1]].requires_grad_()
    return json.loads(str(expected["params"])), inputs, expected


def assert_near(value, expected, tolerance, name):
    value = value.detach().double().numpy()
    assert np.isfinite(value).all(), name
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("name", "case"), [(name, case) for name in RUN for case in cases(name)])
def test_values_and_gradients(name, case, precision):
    parameters, inputs, expected = load(name, case, precision)
    result = RUN[name](parameters, inputs)
    loss, parts = result if isinstance(result, tuple) else (result, {})
    tolerance = 1e-9 if precision == "f64" else max(1e-5, 5 * float(expected.get("f32_vs_f64_rel", 0)))
    assert_near(loss, expected[f"loss_{precision}"], tolerance, "loss")
    for part, value in parts.items():
        assert_near(value, expected[f"out_{precision}.{part}"], tolerance, part)
    if loss.requires_grad:
        loss.backward()
    gradients = [key for key in expected if key.startswith(f"grad_{precision}.")]
    assert gradients or name in WITHOUT_GRADIENTS
    for key in gradients:
        assert_near(inputs[key.split(".", 1)[1]].grad, expected[key], tolerance, key)


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", cases("wsld"))
def test_weights_of_wsld(case, precision):
    _, x, expected = load("wsld", case, precision)
    weights = logits.wsld_weights(x["student"], x["teacher"], x["target"]).numpy()  # the golden ones are in float64
    tolerance = 1e-9 if precision == "f64" else max(1e-5, 5 * float(expected["f32_vs_f64_rel"]))
    np.testing.assert_allclose(weights, expected["out_f64.weight"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", cases("lshfm_hash_bias"))
@pytest.mark.parametrize("kind", ["mean", "median"])
def test_biases_of_hashes(case, kind):
    _, inputs, expected = load("lshfm_hash_bias", case, "f32")
    bias = lshfm.hash_bias(inputs["teacher_features"], inputs["weight"], kind)
    assert_near(bias, expected[f"bias_{kind}"], 1e-5, "bias")


@pytest.mark.parametrize("case", cases("ofd_margin"))
def test_margins_of_ofd(case):
    _, inputs, expected = load("ofd_margin", case, "f64")
    margins = ofd.margin(inputs["bn_weight"], inputs["bn_bias"])
    assert_near(margins, expected["out_f32.margin"], 1e-6, "margin")
    assert_near(margins, expected["out_f64.margin"], 1e-9, "margin")


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("name", "case"), [(name, case) for name in ("kdsvd", "kdsvd_rep") for case in cases(name)])
def test_kdsvd_up_to_the_signs_of_the_teachers_vectors(name, case, precision):
    parameters, inputs, expected = load(name, case, precision)
    student = stages(inputs, "student")
    loss = kdsvd.kdsvd(student, stages(inputs, "teacher"), vectors=parameters["k"], by_pixels=name == "kdsvd_rep")
    loss.backward()
    tolerance = 1e-8 if precision == "f64" else max(1e-4, 5 * float(expected["f32_vs_f64_rel"]))
    values = expected["alt_loss_f64"]  # [samples, sign patterns]
    total = 0.0
    for sample in range(len(values)):
        far = [
            max(
                np.abs(x.grad[sample].numpy() - expected[f"alt_grad_f64.student{i}"][sample, pattern]).max()
                / np.abs(expected[f"alt_grad_f64.student{i}"]).max()
                for i, x in enumerate(student)
            )
            for pattern in range(values.shape[1])
        ]
        assert min(far) <= tolerance
        total += values[sample, int(np.argmin(far))]
    assert loss.item() == pytest.approx(total, rel=tolerance)


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", cases("dot_optimizer"))
def test_the_steps_of_dot(case, precision):
    """param0 has both gradients, param1 the task's alone, param2 the teacher's alone."""
    p, x, expected = load("dot_optimizer", case, precision)
    parameters = [nn.Parameter(x[f"param{number}"].clone()) for number in range(3)]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "taught_only": True}]
    optimizer = Dot(groups, p["lr"], p["momentum"], p["weight_decay"], p["delta"])
    for step in range(p["steps"]):
        taught = sum((x[f"kd_grad{number}"][step] * parameters[number]).sum() for number in (0, 2))
        task = sum((x[f"task_grad{number}"][step] * parameters[number]).sum() for number in (0, 1))
        optimizer.take(taught)
        (task + taught).backward()
        optimizer.step()
        optimizer.zero_grad()
        for number, parameter in enumerate(parameters):
            after = expected[f"out_{precision}.param{number}_after"][step]
            assert_near(parameter, after, 1e-9 if precision == "f64" else 1e-5, f"param{number} after {step}")
