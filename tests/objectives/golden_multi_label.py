"""How the multi-label objectives give the values of `golden/`, by the names of its files (see test_golden.py)."""

import torch

from objectives import labels, logits, multi_label, relations, reviewkd
from objectives.label_embeddings import label_embeddings


def present(target):
    return target.to(torch.int8)


def run_bce(p, x):
    return multi_label.bce(x["student"], present(x["target"]), epsilon=p["eps"], reduction=p["reduction"])


def run_mld(p, x):
    return multi_label.mld(x["student"], x["teacher"], epsilon=p["eps"], reduction=p["reduction"])


def run_label_embeddings(p, x):
    weights = {"cd": (1.0, 0.0), "id": (0.0, 1.0)}.get(p["part"]) or (p["lambda_cd"], p["lambda_id"])
    options = dict(zip(("class_aware", "instance_aware"), weights))
    return label_embeddings(x["student"], x["teacher"], present(x["target"]), **options)


def run_l2d(p, x):
    """The whole loss of L2D."""
    hard = multi_label.bce(x["student"], present(x["target"]), epsilon=1e-8, reduction="sum")
    embeddings = label_embeddings(
        x["student_le"],
        x["teacher_le"],
        present(x["target"]),
        class_aware=p.get("lambda_cd", 100.0),
        instance_aware=p.get("lambda_id", 1000.0),
    )
    return hard + p["lambda_le"] * embeddings + p["lambda_logits"] * multi_label.mld(x["student"], x["teacher"])


def run_rkd(p, x):
    distance = relations.rkd_distance(x["student"], x["teacher"], reduction="batchmean")
    return p["weight_dist"] * distance + p["weight_angle"] * relations.rkd_angle(x["student"], x["teacher"])


def run_hcl(p, x):
    levels = range(sum(name.startswith("student") for name in x))
    assert p["levels"] == [4, 2, 1]
    student, teacher = ([x[f"{who}{level}"] for level in levels] for who in ("student", "teacher"))
    return p["weight"] * reviewkd.hcl(student, teacher)


def run_asymmetric(p, x):
    query2label = p["variant"].startswith("q2l")
    mean = p["reduction"] != "sum"
    loss = multi_label.asymmetric(
        x["student"],
        present(x["target"]),
        gamma_positive=p["gamma_pos"],
        gamma_negative=p["gamma_neg"],
        clip=p["clip"],
        epsilon=p["eps"],
        both_ends=query2label and not p["variant"].endswith("opt"),
        through_weights=not p["disable_torch_grad_focal_loss"],
        reduction="mean" if mean else "sum",
    )
    return 1000 * loss if mean else loss


def run_asymmetric_single_label(p, x):
    return labels.asymmetric_single_label(
        x["student"],
        x["target"],
        gamma_positive=p["gamma_pos"],
        gamma_negative=p["gamma_neg"],
        label_smoothing=p["eps"],
    )


def run_metric(p, x):
    if p["metric"] == "mse":
        return logits.squared_error(x["student"], x["teacher"], reduction="sum")
    return logits.kd(x["student"], x["teacher"], temperature=p["T"], reduction="sum")


def merged(parts, places):
    """Logits of all classes from those of the parts; [B, C_i], {class: its place in part i} -> [B, C]."""
    classes = [int(name) for place in places for name in sorted(place, key=place.get)]
    return torch.cat(parts, 1)[:, torch.tensor(classes).argsort()]


def run_step(p, x):
    """The whole loss of CPSD, from the logits of the teachers' parts."""
    loss = p["w_cls"] * multi_label.asymmetric(x["student"], present(x["target_pm1"] >= 0))
    for name, key in (("co", "idx_coocurrence"), ("cl", "idx_cluster")):
        parts = [x[f"teacher_{name}_part{number}"] for number in range(len(p[key]))]
        teacher = merged(parts, p[key])
        torch.testing.assert_close(teacher, x[f"teacher_{name}_merged"], rtol=0, atol=0)
        loss = loss + p[f"w_{name}"] * run_metric(p, {"student": x["student"], "teacher": teacher})
    return loss


RUN = {
    "cpsd_asl": run_asymmetric,
    "cpsd_asl_single_label": run_asymmetric_single_label,
    "cpsd_metric_loss": run_metric,
    "cpsd_step": run_step,
    "l2d_bce": run_bce,
    "l2d_led": run_label_embeddings,
    "l2d_mld": run_mld,
    "l2d_pkt": lambda p, x: relations.pkt(x["student"], x["teacher"], epsilon=p["eps"]),
    "l2d_psm": lambda p, x: multi_label.partial_softmax(x["student"], x["teacher"], present(x["target"])),
    "l2d_reviewkd_hcl": run_hcl,
    "l2d_rkd": run_rkd,
    "l2d_total": run_l2d,
    "lshfm_mce": lambda p, x: multi_label.mce(x["student"], present(x["target"])),
}
