"""The methods that were published, one entry each: terms and weights by data set, scores, papers.

    python train_with_distillation.py --methods [--cfg configs/imagenet.py]

No score here has been repeated with this code yet.
"""

from __future__ import annotations

from configs._method import Before, Setup, Terms, listed, method
from configs._pieces import (
    WARMUP,
    alone,
    embedding,
    kds,
    on_cifar100,
    on_imagenet,
    readme,
    released,
    repdistiller,
    term,
)
from models.heads import HeadConfig

README, MDISTILLER = "the authors' README", "MDistiller's README"
LISTINGS, DKD, AS_CIFAR = "public listings", "the DKD paper's tables", "weighted as on CIFAR-100"
MDISTILLERS, AUTHORS = "the weight is MDistiller's", "the weight is the authors'"


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


def _reviewkd_on_imagenet(teacher: str, student: str) -> Terms:
    return term("reviewkd_pre", 1.0 if teacher == "resnet34" else 8.0, name="reviewkd")


METHODS = {
    "none": method(
        "A network alone: a student's baseline, or a teacher for the other methods.",
        imagenet=Setup(
            {},
            alone("Zhou et al., ICLR 2021", **{"resnet18": 69.75, "timm/mobilenetv1_100": 68.87}),
            "ResNet-18's score is torchvision's; the recipe is that of imagenet_train_cfg.py",
            teachers=(),
            optim={"nesterov": True},
            name="{student}_plain",
        ),
        cifar100=Setup(
            {},
            alone(
                MDISTILLER,
                **{"resnet56": 72.34, "resnet110": 74.31, "resnet32x4": 79.42},
                **{"resnet50": 79.34, "wrn_40_2": 75.61, "vgg13": 74.64},
            ),
            teachers=(),
            name="{data}_{student}",
        ),
    ),
    "ab": method(
        "Activation boundaries, then cross-entropy alone. Heo et al., AAAI 2019, arXiv 1811.03233.",
        imagenet=Setup(
            {},
            remark="the weight is a tenth of CIFAR-100's, as for ofd: both are sums over channels and pixels",
            before={"boundaries": Before(10, term("ab", 0.0003))},
        ),
        cifar100=Setup(
            {},
            repdistiller(73.17),
            "the weight is RepDistiller's",
            before={"boundaries": Before(30, term("ab", 0.003))},
        ),
    ),
    "at": method(
        "Attention transfer. Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928.",
        imagenet=Setup(term("at", 1000.0), on_imagenet(DKD, 70.69, 69.56), MDISTILLERS, batch_size=512),
        cifar100=Setup(term("at", 1000.0), repdistiller(73.44, 58.58)),
    ),
    "catkd": method(
        "Class attention transfer. Guo et al., CVPR 2023.",
        imagenet=Setup(term("catkd", 400.0), on_imagenet(LISTINGS, 71.26, 72.24), AS_CIFAR),
        cifar100=Setup(term("catkd", 400.0)),
    ),
    "cc": method(
        "Correlation congruence as RepDistiller has it; that of Peng et al., ICCV 2019, arXiv 1904.01802, is `cc`.",
        imagenet=Setup(term("consecutive_correlation", 0.02, name="cc"), remark=AS_CIFAR),
        cifar100=Setup(term("consecutive_correlation", 0.02, name="cc"), repdistiller(72.97)),
    ),
    "crd": method(
        "Contrastive representation distillation. Tian et al., ICLR 2020, arXiv 1910.10699.",
        imagenet=Setup(term("crd", 0.8), on_imagenet(DKD, 71.17, 71.37)),
        cifar100=Setup(term("crd", 0.8), repdistiller(75.51, 69.11)),
    ),
    "crd_kd": method(
        "Contrastive representation distillation with KD. Tian et al., ICLR 2020, arXiv 1910.10699.",
        imagenet=Setup(term("kd", temperature=1.0) | term("crd", 0.8), remark="the temperature is that of kd"),
        cifar100=Setup(term("kd", temperature=4.0) | term("crd", 0.8)),
    ),
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
            term("ctkd", 0.5), on_imagenet(README, 71.32), "the weights are those of kd", labels=0.5, batch_size=512
        ),
        cifar100=Setup(term("ctkd", 0.9), labels=0.1),
    ),
    "dist": method(
        "DIST. Huang et al., NeurIPS 2022, arXiv 2205.10536.",
        imagenet=Setup(term("dist", beta=2.0, gamma=2.0, temperature=1.0), on_imagenet(README, 72.07, 73.24)),
        cifar100=Setup(term("dist", beta=2.0, gamma=2.0, temperature=4.0), readme(76.31)),
    ),
    "dkd": method(
        "Decoupled knowledge distillation. Zhao et al., CVPR 2022, arXiv 2203.08679.",
        imagenet=Setup(_dkd_on_imagenet, on_imagenet(MDISTILLER, 71.70, 72.05), batch_size=512),
        cifar100=Setup(
            _dkd_on_cifar100,
            on_cifar100(MDISTILLER, *(71.97, 74.11, 76.32, 76.23, 74.81, 74.68, 76.45, 76.70, 69.71, 70.35, 77.07)),
        ),
    ),
    "fitnet": method(
        "FitNets, in a single run as RepDistiller and MDistiller have it. Romero et al., ICLR 2015, arXiv 1412.6550.",
        imagenet=Setup(term("fitnet", 100.0, hint=2), remark=AS_CIFAR),
        cifar100=Setup(term("fitnet", 100.0, hint=2), repdistiller(73.50, 63.16)),
    ),
    "fitnet_hint": method(
        "FitNets: hints train the layers up to a hint, then KD trains all. Romero et al., ICLR 2015, arXiv 1412.6550.",
        imagenet=Setup(
            term("kd", 0.5, temperature=1.0),
            remark="the weights are those of kd",
            labels=0.5,
            before={"hint": Before(10, term("fitnet", name="hint", hint=2))},
        ),
        cifar100=Setup(
            term("kd", 0.9, temperature=4.0),
            labels=0.1,
            before={"hint": Before(30, term("fitnet", name="hint", hint=2))},
        ),
    ),
    "fsp": method(
        "Flow of the solution procedure, then cross-entropy alone. Yim et al., CVPR 2017.",
        imagenet=Setup({}, before={"flows": Before(10, term("fsp"))}),
        cifar100=Setup({}, repdistiller(72.62), "as in RepDistiller", before={"flows": Before(30, term("fsp"))}),
    ),
    "ft": method(
        "Factor transfer: a paraphraser, then the student. Kim et al., NeurIPS 2018, arXiv 1802.04977.",
        imagenet=Setup(
            term("ft", 1000.0),
            on_imagenet("torchdistill's table, the paper's own", 71.43),
            "as torchdistill has it",
            before={"paraphraser": Before(1, term("ft"), 0.01, ("terms.ft.paraphraser",))},
            trainable=("student", "terms.ft.translator"),
        ),
        cifar100=Setup(
            term("ft", 200.0, over_channels=True),
            repdistiller(72.86),
            "as RepDistiller has it",
            before={"paraphraser": Before(30, term("ft", over_channels=True), 0.01, ("terms.ft.paraphraser",))},
            trainable=("student", "terms.ft.translator"),
        ),
    ),
    "ickd": method(
        "Inter-channel correlation. Liu et al., ICCV 2021, arXiv 2202.03680.",
        imagenet=Setup(term("ickd", 2.5), on_imagenet("the paper, for a weight that may be another", 72.19), AS_CIFAR),
        cifar100=Setup(term("ickd", 2.5), remark=AUTHORS),
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
            term("kd", 9 * 0.5, temperature=2.0, standardize=True),
            on_imagenet("torchdistill's table", 71.42),
            "nine times the weight of kd, as on CIFAR-100",
            labels=0.5,
            batch_size=512,
        ),
        cifar100=Setup(term("kd", 9 * 0.9, temperature=2.0, standardize=True), readme(76.62), labels=0.1),
    ),
    "kdsvd": method(
        "Distillation by singular value decomposition. Lee et al., ECCV 2018, arXiv 1807.06819.",
        imagenet=Setup(term("kdsvd"), remark=AS_CIFAR),
        cifar100=Setup(term("kdsvd"), remark=MDISTILLERS),
    ),
    "lshfm": method(
        "Feature mimicking by hashing: hashes and squared distance, of samples that the teacher gets right. Wang et "
        "al., TPAMI 2021, arXiv 2011.01424.",
        imagenet=Setup(
            term("lshfm", 5.0, hashes=2048, correct_only=True),
            on_imagenet(LISTINGS, 71.72),
            student=embedding("imagenet"),
        ),
        cifar100=Setup(term("lshfm", 6.0, correct_only=True, bias="median"), student=embedding("cifar100")),
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
        ),
        cifar100=released(
            term("mlkd", 0.9, temperature=4.0) | term("mlkd", 0.9, name="strong_mlkd", temperature=4.0, view="strong"),
            remark="epochs and rate are those of the released code, whose sum is mlkd_released",
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
            term("mlkd", 9 * 0.5, temperature=2.0, standardize=True)
            | term("cross_entropy", 0.5, name="strong_cross_entropy", view="strong")
            | term("mlkd", 9 * 0.5, name="strong_mlkd", temperature=2.0, standardize=True, view="strong"),
            on_imagenet(LISTINGS, 72.08, 73.22),
            "nine times the weight of mlkd, as on CIFAR-100",
            labels=0.5,
            batch_size=512,
        ),
        cifar100=released(
            term("mlkd", 9 * 0.9, temperature=2.0, standardize=True)
            | term("mlkd", 9 * 0.9, name="strong_mlkd", temperature=2.0, standardize=True, view="strong")
        ),
    ),
    "nkd": method(
        "Normalised KD. Yang et al., ICCV 2023, arXiv 2303.13005.",
        imagenet=Setup(term("nkd", gamma=1.5, temperature=1.0), on_imagenet(README, 71.96, 72.58)),
        cifar100=Setup(term("nkd", gamma=1.5, temperature=1.0)),
    ),
    "nst": method(
        "Neuron selectivity transfer. Huang and Wang, 2017, arXiv 1707.01219.",
        imagenet=Setup(term("nst", 50.0), remark=AS_CIFAR),
        cifar100=Setup(term("nst", 50.0), repdistiller(73.30, 64.96)),
    ),
    "ofd": method(
        "Overhaul of feature distillation. Heo et al., ICCV 2019, arXiv 1904.01866.",
        imagenet=Setup(term("ofd", 1e-4), on_imagenet(DKD, 70.81, 71.25), MDISTILLERS, batch_size=128),
        cifar100=Setup(term("ofd", 1e-3), remark=MDISTILLERS),
    ),
    "pkt": method(
        "Probabilistic knowledge transfer. Passalis and Tefas, ECCV 2018, arXiv 1803.10837.",
        imagenet=Setup(term("pkt", 30000.0), remark=AS_CIFAR),
        cifar100=Setup(term("pkt", 30000.0), repdistiller(73.64, 66.52)),
    ),
    "reviewkd": method(
        "Knowledge review. Chen et al., CVPR 2021, arXiv 2104.09044.",
        imagenet=Setup(_reviewkd_on_imagenet, on_imagenet(DKD, 71.61, 72.56), "on maps before their ReLUs"),
        cifar100=Setup(term("reviewkd", 5.0, ramp=WARMUP), remark="weight and growth are MDistiller's"),
    ),
    "rkd": method(
        "Relational distillation. Park et al., CVPR 2019, arXiv 1904.05068.",
        imagenet=Setup(term("rkd_distance", 25.0) | term("rkd_angle", 50.0), remark=AS_CIFAR),
        cifar100=Setup(term("rkd_distance", 25.0) | term("rkd_angle", 50.0), repdistiller(71.90, 64.43)),
    ),
    "sdd": method(
        "Scale decoupled distillation, on KD. Wei et al., CVPR 2024, arXiv 2403.13512.",
        imagenet=Setup(
            term("sdd", scales=3, temperature=1.0),
            on_imagenet("the authors", None, 72.24),
            "the temperature is the authors', the scales are those of CIFAR-100",
            batch_size=512,
        ),
        cifar100=Setup(term("sdd", scales=3, temperature=4.0, ramp=WARMUP)),
    ),
    "simkd": method(
        "A student with its teacher's classifier: only the last maps count. Chen et al., CVPR 2022, arXiv 2203.14001.",
        imagenet=Setup(term("simkd"), labels=0, student=lambda _: {"head": HeadConfig("reused")}, epochs=120),
        cifar100=Setup(term("simkd"), readme(78.08), labels=0, student=lambda _: {"head": HeadConfig("reused")}),
    ),
    "sp": method(
        "Similarity preserving. Tung and Mori, ICCV 2019, arXiv 1907.09682.",
        imagenet=Setup(term("sp", 3000.0), remark=AS_CIFAR),
        cifar100=Setup(term("sp", 3000.0), repdistiller(72.94, 68.08)),
    ),
    "srd": method(
        "Simple recipe distillation. Miles and Mikolajczyk, AAAI 2024, arXiv 2303.11098.",
        imagenet=Setup(term("srd"), on_imagenet(LISTINGS, 71.63)),
        cifar100=Setup(term("srd"), remark="the weight is that of ImageNet"),
    ),
    "srrl": method(
        "Softmax regression. Yang et al., ICLR 2021, Knowledge distillation via softmax regression representation "
        "learning.",
        imagenet=Setup(term("srrl"), on_imagenet("the table of TTM's README", 71.73, 72.49)),
        cifar100=Setup(term("srrl")),
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
            term("uskd", alpha=1.0, beta=0.1, mu=0.005), alone(README, resnet18=70.79, resnet50=77.07), teachers=()
        ),
        cifar100=Setup(term("uskd", alpha=0.1, beta=0.1, mu=0.1), remark="the weights are the authors'", teachers=()),
    ),
    "vid": method(
        "Variational information distillation. Ahn et al., CVPR 2019, arXiv 1904.05835.",
        imagenet=Setup(term("vid"), remark=AS_CIFAR),
        cifar100=Setup(term("vid"), repdistiller(73.09, 67.57)),
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
    "wttm_crd": method(
        "Weighted transformed teacher matching with CRD. Zheng and Yang, ICLR 2024, arXiv 2402.11148.",
        cifar100=Setup(
            term("ttm", 4.0, temperature=5.0) | term("crd", 0.8),
            on_cifar100(README, *(72.20, 74.52, 76.65, 76.61, 74.94, 74.71, 75.82, 76.86, 70.30, 70.84, 77.04)),
            "the authors give these weights for VGG13 and VGG8",
        ),
    ),
}


def methods() -> str:
    """What --methods shows."""
    return listed(METHODS)
