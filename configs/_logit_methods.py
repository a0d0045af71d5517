"""Methods that compare logits alone, or learn from labels alone; `methods.py` has the whole table."""

from __future__ import annotations

from configs._method import Setup, Terms, method
from configs._pieces import (
    COSTS,
    LIGHT,
    LISTINGS,
    MDISTILLER,
    README,
    WARMUP,
    alone,
    falling,
    kds,
    on_cifar100,
    on_imagenet,
    rate_of_mlkd_standardized,
    readme,
    released,
    term,
    wkd_l,
    wkd_l_on_imagenet,
)
from models.heads import HeadConfig


def _dkd_on_cifar100(teacher: str, student: str) -> Terms:
    betas = {
        ("resnet56", "resnet20"): 2.0,
        ("resnet110", "resnet32"): 2.0,
        ("wrn_40_2", "wrn_16_2"): 6.0,
        ("wrn_40_2", "wrn_40_1"): 6.0,
        ("vgg13", "vgg8"): 6.0,
        ("vgg13", "mobilenetv2"): 6.0,
    }
    beta = betas.get((teacher, student), 8.0)
    return term("dkd", alpha=1.0, beta=beta, temperature=4.0, ramp=WARMUP)


def _dkd_on_imagenet(teacher: str, student: str) -> Terms:
    return term("dkd", alpha=1.0, beta=0.5 if teacher == "resnet34" else 2.0, temperature=1.0)


def _rate_of_mlkd_on_imagenet(teacher: str, _: str) -> float:
    return 0.5 if teacher == "resnet34" else 1.0  # 0.1 or 0.2 for batches of 512


def _luminet_on_cifar100(teacher: str, student: str) -> Terms:
    weights = {  # of the cross-entropy, alpha, temperature
        ("wrn_40_2", "wrn_40_1"): (1.0, 75.0, 8.0),
        ("vgg13", "vgg8"): (1.0, 70.0, 8.0),
        ("wrn_40_2", "shufflenetv1"): (2.0, 35.0, 4.0),
        ("vgg13", "mobilenetv2"): (2.0, 70.0, 8.0),
        ("resnet50", "mobilenetv2"): (2.0, 70.0, 8.0),
    }
    hard, alpha, temperature = weights.get((teacher, student), (2.0, 34.0, 4.0))
    return term("cross_entropy", hard) | term("luminet", alpha**2, temperature=temperature, ramp=WARMUP)


def _pcd_on_cifar100(_: str, student: str) -> Terms:
    return term("pcd", stages=5 if student.startswith(LIGHT) else 3, ramp=WARMUP)


def _wkd_l_on_cifar100(teacher: str, _: str) -> Terms:
    weight, temperature = (200.0, 6.0) if teacher == "wrn_40_2" else (600.0, 8.0)
    return wkd_l(weight, falling(150, 240), temperature=temperature)


LOGIT_METHODS = {
    "crld": method(
        "Cross-view consistency. Zhang et al., ACM Multimedia 2024, arXiv 2412.16493.",
        imagenet=Setup(
            term("cross_entropy", 2.0, name="strong_cross_entropy", view="strong") | term("crld", temperature=1.0),
            on_imagenet(LISTINGS, 72.37, 73.53),
            labels=2.0,
            batch_size=512,
        ),
        cifar100=Setup(term("cross_entropy", name="strong_cross_entropy", view="strong") | term("crld")),
    ),
    "ctkd": method(
        "Curriculum temperature, on KD. Li et al., AAAI 2023, arXiv 2211.16231.",
        imagenet=Setup(
            term("ctkd", loops=5.0), on_imagenet(README, 71.32), "weights and growth are the authors'", epochs=120
        ),
        cifar100=Setup(term("ctkd", 0.9), on_cifar100(README, 71.19, 73.52, None, 75.45, 73.93, 73.52), labels=0.1),
    ),
    "deit": method(
        "DeiT: a second classifier, of a distillation token, learns the teacher's class. Touvron et al., ICML 2021, "
        "arXiv 2012.12877.",
        imagenet=Setup(
            term("distillation_token", 0.5),
            remark="published with a RegNetY-16GF: tiny 74.5, small 81.2, base 83.4 (the authors' README), with strong "
            "augmentation beside; student=timm/deit_tiny_distilled_patch16_224 or the like",
            labels=0.5,
            student=lambda *_: {"head": HeadConfig("distilled")},
            batch_size=1024,
            epochs=300,
            rate=0.0025,
            optim={
                **{"optimizer": "adamw", "weight_decay": 0.05, "decay_norm_and_bias": False},
                **{"schedule": "cosine", "warmup_epochs": 5.0, "min_lr": 1e-5},
            },
        ),
    ),
    "dist": method(
        "DIST. Huang et al., NeurIPS 2022, arXiv 2205.10536.",
        imagenet=Setup(term("dist", beta=2.0, gamma=2.0, temperature=1.0), on_imagenet(README, 72.07, 73.24)),
        cifar100=Setup(
            term("dist", beta=2.0, gamma=2.0, temperature=4.0),
            on_cifar100(README, *(71.75, None, 76.31, None, 74.43, None, 76.34, None, None, 68.66, 77.35)),
        ),
    ),
    "dkd": method(
        "Decoupled knowledge distillation. Zhao et al., CVPR 2022, arXiv 2203.08679.",
        imagenet=Setup(_dkd_on_imagenet, on_imagenet(MDISTILLER, 71.70, 72.05), batch_size=512),
        cifar100=Setup(
            _dkd_on_cifar100,
            on_cifar100(MDISTILLER, *(71.97, 74.11, 76.32, 76.23, 74.81, 74.68, 76.45, 76.70, 69.71, 70.35, 77.07)),
        ),
    ),
    "hard_label": method(
        "The teacher's class in place of its probabilities. Touvron et al., ICML 2021, arXiv 2012.12877, section 4.",
        imagenet=Setup(term("hard_label", 0.5), labels=0.5),
        cifar100=Setup(term("hard_label", 0.5), labels=0.5),
    ),
    "kd": method(
        "Knowledge distillation. Hinton et al., 2015, arXiv 1503.02531; the weights are MDistiller's.",
        imagenet=Setup(
            term("kd", 0.5, temperature=1.0), on_imagenet(MDISTILLER, 71.03, 70.50), labels=0.5, batch_size=512
        ),
        cifar100=Setup(
            term("kd", 0.9, temperature=4.0),
            on_cifar100(MDISTILLER, *(70.66, 73.08, 73.33, 74.92, 73.54, 72.98, 74.07, 74.83, 67.37, 67.35, 74.45)),
            labels=0.1,
        ),
    ),
    "kd_dot": method(
        "Distillation-oriented training, on KD. Zhao et al., ICCV 2023.",
        imagenet=Setup(
            term("kd", 0.5, temperature=1.0),
            on_imagenet(MDISTILLER, 71.72, 73.09),
            labels=0.5,
            batch_size=512,
            optim={"optimizer": "dot", "delta": 0.09},
        ),
        cifar100=Setup(
            term("kd", 0.9, temperature=4.0),
            on_cifar100(MDISTILLER, None, None, 75.12, None, None, 73.77, *(None,) * 4, 75.55),
            labels=0.1,
            optim={"optimizer": "dot", "delta": 0.075},
        ),
    ),
    "kd_ensemble": method(
        "KD from two teachers, teacher= and second=, whose probabilities are averaged. Hinton et al., 2015, arXiv "
        "1503.02531.",
        cifar100=Setup(
            term("kd", 0.9, teacher=("teacher", "second"), temperature=4.0), labels=0.1, teachers=("teacher", "second")
        ),
    ),
    "kd_standardized": method(
        "Logit standardisation: KD on standardised logits. Sun et al., CVPR 2024, arXiv 2403.01427.",
        imagenet=Setup(
            term("kd", 9.0, temperature=2.0, standardize=True),
            on_imagenet("torchdistill's table", 71.42),
            "weights and temperature are torchdistill's",
            labels=0.5,
            batch_size=512,
        ),
        cifar100=Setup(term("kd", 9.0, temperature=2.0, standardize=True), readme(76.62), labels=0.1),
    ),
    "ldrld": method(
        "Local dense relations: the student's first classes two by two. Xu et al., ICCV 2025, arXiv 2507.15911.",
        imagenet=Setup(
            term("ldrld", temperature=1.0),
            on_imagenet(LISTINGS, 71.88, 73.12),
            "the weights are the authors' for CIFAR-100, the temperature is that of kd",
        ),
        cifar100=Setup(
            term("ldrld"),
            on_cifar100(LISTINGS, 72.20, None, 77.20, 76.35, None, 75.06, 76.46),
            "the authors give these weights for ResNet-32x4 and ResNet-8x4; their learning rate grows over 20 epochs",
            optim={"warmup_epochs": 20.0},
        ),
    ),
    "luminet": method(
        "LumiNet: logits as their classes have them in the batch. Hossain et al., 2023, arXiv 2310.03669.",
        imagenet=Setup(
            lambda teacher, _: term("luminet", 2.0**2, temperature=1.0 if teacher == "resnet34" else 0.7),
            on_imagenet(README, 72.16, 72.55),
            "for ResNet-18 the authors' files have batches of 512",
        ),
        cifar100=Setup(
            _luminet_on_cifar100,
            on_cifar100(README, *(72.29, 74.20, 77.50, 76.38, 75.12, 74.94, 76.66, 76.95, 70.50, 70.97, 77.55)),
            "the authors changed their weights over time",
            labels=0,
        ),
    ),
    "mlkd": method(
        "Multi-level logit distillation: every level for both views, as the paper says. Jin et al., CVPR 2023.",
        imagenet=Setup(
            term("mlkd", 0.5, temperature=1.0)
            | term("cross_entropy", 0.5, name="strong_cross_entropy", view="strong")
            | term("mlkd", 0.5, name="strong_mlkd", temperature=1.0, view="strong"),
            on_imagenet(LISTINGS, 71.90, 73.01),
            labels=0.5,
            batch_size=512,
            rate=_rate_of_mlkd_on_imagenet,
        ),
        cifar100=released(
            term("mlkd", 0.9, temperature=4.0) | term("mlkd", 0.9, name="strong_mlkd", temperature=4.0, view="strong"),
            remark="epochs and rates are those of the released code, whose sum is mlkd_released",
        ),
    ),
    "mlkd_released": method(
        "Multi-level logit distillation as the released code sums it: masks of half the samples or classes multiply "
        "the terms of the images after they are averaged; two of the strong views' five temperatures read the "
        "weak views, and the strong views' correlations are left out. Jin et al., CVPR 2023.",
        cifar100=released(
            term("mlkd", 0.9 / 2) | kds(4.0, 3.0, 5.0, view="strong") | kds(2.0, 6.0),
            on_cifar100(
                "the README of logit standardisation",
                *(72.19, 74.11, 77.08, 76.63, 75.35, 75.18, None, None, 70.57, 71.04, 78.44),
            ),
        ),
    ),
    "mlkd_standardized": method(
        "Multi-level logit distillation of standardised logits, for both views. Sun et al., CVPR 2024, arXiv "
        "2403.01427, on Jin et al., CVPR 2023.",
        imagenet=Setup(
            term("mlkd", 9.0, temperature=2.0, standardize=True)
            | term("cross_entropy", 0.5, name="strong_cross_entropy", view="strong")
            | term("mlkd", 9.0, name="strong_mlkd", temperature=2.0, standardize=True, view="strong"),
            on_imagenet(LISTINGS, 72.08, 73.22),
            "the weight of mlkd is that of CIFAR-100",
            labels=0.5,
            batch_size=512,
            rate=_rate_of_mlkd_on_imagenet,
        ),
        cifar100=released(
            term("mlkd", 9.0, temperature=2.0, standardize=True)
            | term("mlkd", 9.0, name="strong_mlkd", temperature=2.0, standardize=True, view="strong"),
            remark="the authors have 960 epochs for ShuffleNets that ResNet-32x4 teaches",
            rate=rate_of_mlkd_standardized,
        ),
    ),
    "nkd": method(
        "Normalised KD. Yang et al., ICCV 2023, arXiv 2303.13005.",
        imagenet=Setup(term("nkd", gamma=1.5, temperature=1.0), on_imagenet(README, 71.96, 72.58)),
        cifar100=Setup(
            term("nkd", gamma=3.5, temperature=3.0),
            remark="the weight and the temperature are the authors' for ResNet-34 and ResNet-18",
        ),
    ),
    "pcd": method(
        "Progressive class-level distillation: groups of classes by how much they differ. Li et al., 2025, arXiv "
        "2505.24310.",
        imagenet=Setup(
            lambda teacher, _: term("pcd", stages=3 if teacher == "resnet34" else 5, temperature=1.0), batch_size=512
        ),
        cifar100=Setup(_pcd_on_cifar100, on_cifar100(LISTINGS, None, None, 76.34)),
    ),
    "rld": method(
        "Refined logits: what is wrong of the teacher's is left out. Sun et al., ICCV 2025, arXiv 2408.07703.",
        imagenet=Setup(
            lambda teacher, _: term("rld", beta=0.5 if teacher == "resnet34" else 2.0, temperature=1.0),
            on_imagenet(LISTINGS, 71.91, 72.75),
            batch_size=512,
        ),
        cifar100=Setup(
            term("rld", alpha=1.0, beta=8.0, temperature=4.0, ramp=WARMUP),
            on_cifar100(LISTINGS, 72.00, 74.02, 76.64, None, 74.88, 74.93),
            "the authors choose alpha and beta by pair, and give these for VGG13 and VGG8",
        ),
    ),
    "ttm": method(
        "Transformed teacher matching, on ImageNet weighted. Zheng and Yang, ICLR 2024, arXiv 2402.11148.",
        imagenet=Setup(
            term("ttm", 4.0, temperature=5.0),
            on_imagenet("the authors' README, for weights that may be others", 72.19, 73.09),
            "weight and temperature are those of wttm_crd on CIFAR-100",
        ),
        cifar100=Setup(
            term("ttm", 45.0, temperature=10.0, weighted=False),
            on_cifar100(README, *(71.83, 73.97, 76.17, 76.23, 74.32, 74.33, 74.18, 75.39, 68.98, 69.24, 76.57)),
            "the authors give this weight and temperature for VGG13 and VGG8",
        ),
    ),
    "uskd": method(
        "Self-distillation by Zipf's law, without a teacher. Yang et al., ICCV 2023, arXiv 2303.13005.",
        imagenet=Setup(
            term("uskd", alpha=1.0, beta=0.1, mu=0.005),
            alone(README, **{"resnet18": 70.79, "timm/mobilenetv1_100": 70.38, "resnet50": 77.07}),
            teachers=(),
        ),
        cifar100=Setup(term("uskd", alpha=0.1, beta=0.1, mu=0.1), remark="the weights are the authors'", teachers=()),
    ),
    "wkd_l": method(
        "Wasserstein distance of logits. Lv et al., NeurIPS 2024, arXiv 2412.08139.",
        imagenet=Setup(
            wkd_l_on_imagenet,
            on_imagenet(README, 72.49, 73.17),
            COSTS,
        ),
        cifar100=Setup(
            _wkd_l_on_cifar100,
            on_cifar100(README, None, None, 76.53, *(None,) * 4, 76.72),
            COSTS,
        ),
    ),
    "wsld": method(
        "Weighted soft labels. Zhou et al., ICLR 2021, arXiv 2102.00650.",
        imagenet=Setup(
            term("wsld", 2.5, temperature=2.0),
            on_imagenet("the paper, for its own recipe", 72.04, 71.52),
            "in the recipe of the other methods; imagenet_train_cfg.py has its own",
        ),
        cifar100=Setup(term("wsld", 2.25, temperature=4.0), remark="temperature and weight as in the port in cls_KD"),
    ),
}
