"""Methods that compare features, with or without logits; `methods.py` has the whole table."""

from __future__ import annotations

from dataclasses import replace

from configs._method import Before, Setup, Terms, method
from configs._pieces import (
    AS_CIFAR,
    AUTHORS,
    COSTS,
    DKD,
    KDPP,
    LISTINGS,
    MDISTILLERS,
    README,
    embedding,
    falling,
    on_cifar100,
    on_imagenet,
    readme,
    repdistiller,
    term,
    wkd_l,
    wkd_l_on_imagenet,
)
from knowledge_distiller import Term
from models.heads import HeadConfig


def _catkd_on_imagenet(teacher: str, _: str) -> Terms:
    if teacher == "resnet34":
        return term("catkd", 0.5, resolution=4, normalize=False)
    return term("catkd", 10.0, resolution=2)


def _catkd_on_cifar100(teacher: str, student: str) -> Terms:
    alike = {  # weights, of maps as they are
        ("resnet56", "resnet20"): 0.7,
        ("resnet110", "resnet32"): 1.8,
        ("resnet32x4", "resnet8x4"): 15.0,
        ("wrn_40_2", "wrn_16_2"): 12.0,
        ("wrn_40_2", "wrn_40_1"): 1.5,
        ("vgg13", "vgg8"): 4.5,
    }
    others = {  # weights of normalised maps, pixels a side
        ("resnet32x4", "shufflenetv1"): (600.0, 4),
        ("resnet32x4", "shufflenetv2"): (600.0, 4),
        ("wrn_40_2", "shufflenetv1"): (80.0, 4),
        ("vgg13", "mobilenetv2"): (15.0, 2),
        ("resnet50", "mobilenetv2"): (40.0, 2),
    }
    pair = teacher, student
    if pair in alike:
        return term("catkd", alike[pair], resolution=2, normalize=False)
    weight, resolution = others.get(pair, (400.0, 2))
    return term("catkd", weight, resolution=resolution)


def _reviewkd_on_imagenet(teacher: str, _: str) -> Terms:
    weight, channels = (1.0, 512) if teacher == "resnet34" else (8.0, 256)
    return term("reviewkd_pre", weight, name="reviewkd", channels=channels)


def _reviewkd_on_cifar100(teacher: str, student: str) -> Terms:
    weights = {
        ("resnet56", "resnet20"): 0.6,
        ("resnet110", "resnet32"): 1.0,
        ("resnet32x4", "shufflenetv2"): 8.0,
    }
    return term("reviewkd", weights.get((teacher, student), 5.0), ramp=((1, 0.0), (21, 1.0)))


def _sdd_on_cifar100(teacher: str, student: str) -> Terms:
    return term("sdd", 0.9, scales=2 if teacher[:3] == student[:3] else 3, temperature=4.0)


def _wkd_f_on_imagenet(teacher: str, _: str) -> Terms:
    weight, ramp = (0.02, falling(0, 100)) if teacher == "resnet34" else (0.005, falling(30, 100))
    return term("wkd_f", weight, ramp=ramp, ratio=2.0, grid=4, hidden=256)


def _wkd_on_imagenet(teacher: str, student: str) -> Terms:
    features = _wkd_f_on_imagenet(teacher, student)["wkd_f"]
    return wkd_l_on_imagenet(teacher, student) | {"wkd_f": replace(features, ramp=falling(0, 100))}


def _wkd_f_on_cifar100(teacher: str, _: str) -> Terms:
    if teacher == "wrn_40_2":
        return term("wkd_f", 0.3, ramp=falling(150, 240), ratio=3.0, grid=4)
    return term("wkd_f", 0.08, ramp=falling(150, 240), ratio=4.0)


def _wkd_on_cifar100(teacher: str, _: str) -> Terms:
    ramp = falling(150, 240)
    if teacher == "wrn_40_2":
        return wkd_l(60.0, ramp, temperature=4.0) | term("wkd_f", 0.5, ramp=ramp, ratio=3.0, grid=4)
    return wkd_l(200.0, ramp, temperature=8.0) | term("wkd_f", 0.08, ramp=ramp, ratio=8.0)


def _fcfd_on_imagenet(teacher: str, _: str) -> Terms:
    maps = 0.02 if teacher == "resnet34" else 5.0
    return term("kd", temperature=1.0) | term("fcfd", temperature=1.0, maps=maps, warmup=5.0)


def _fcfd_on_cifar100(teacher: str, student: str) -> Terms:
    def ends(name: str) -> list[str]:  # of the stages before the last
        stages = (
            4
            if name.startswith(("vgg", "mobilenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"))
            else 3
        )
        return [f"stage{number}_sum" if name.startswith("wrn") else f"stage{number}" for number in range(1, stages)]

    heat = 8.0 if student.startswith("shufflenet") else 4.0
    weight, maps = 1.0, 5.0
    if student.startswith("wrn"):
        weight, maps = 0.2, 25.0
    elif student.startswith("resnet"):
        maps = 0.02
    stages = (*zip(ends(student), ends(teacher)),)
    paths = Term("fcfd", weight, options={"temperature": heat, "maps": maps}, stages=stages)
    return term("kd", temperature=heat) | {"fcfd": paths}


FEATURE_METHODS = {
    "ab": method(
        "Activation boundaries, then cross-entropy alone. Heo et al., AAAI 2019, arXiv 1811.03233.",
        imagenet=Setup(
            {},
            remark="the weight is a tenth of CIFAR-100's, as for ofd: both are sums over channels and pixels",
            before={"boundaries": Before(10, term("ab", 0.0003))},
        ),
        cifar100=Setup(
            {},
            repdistiller("ab"),
            "the weight is RepDistiller's",
            before={"boundaries": Before(30, term("ab", 0.003))},
        ),
    ),
    "at": method(
        "Attention transfer. Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928.",
        imagenet=Setup(term("at", 1000.0), on_imagenet(DKD, 70.69, 69.56), MDISTILLERS, batch_size=512),
        cifar100=Setup(term("at", 1000.0), repdistiller("at")),
    ),
    "catkd": method(
        "Class attention transfer. Guo et al., CVPR 2023.",
        imagenet=Setup(_catkd_on_imagenet, on_imagenet(LISTINGS, 71.26, 72.24), batch_size=512),
        cifar100=Setup(
            _catkd_on_cifar100,
            on_cifar100(LISTINGS, None, None, 76.91),
            "weights of other pairs than the authors' are to be tuned",
        ),
    ),
    "cc": method(
        "Correlation congruence (Peng et al., ICCV 2019, arXiv 1904.01802) as RepDistiller has it; the paper's is "
        "the objective `cc`, for a config of yours.",
        imagenet=Setup(term("consecutive_correlation", 0.02, name="cc"), remark=AS_CIFAR),
        cifar100=Setup(term("consecutive_correlation", 0.02, name="cc"), repdistiller("cc")),
    ),
    "crd": method(
        "Contrastive representation distillation. Tian et al., ICLR 2020, arXiv 1910.10699.",
        imagenet=Setup(term("crd", 0.8), on_imagenet(DKD, 71.17, 71.37)),
        cifar100=Setup(term("crd", 0.8), repdistiller("crd")),
    ),
    "crd_kd": method(
        "Contrastive representation distillation with KD. Tian et al., ICLR 2020, arXiv 1910.10699.",
        imagenet=Setup(term("kd", temperature=1.0) | term("crd", 0.8), remark="the temperature is that of kd"),
        cifar100=Setup(term("kd", temperature=4.0) | term("crd", 0.8)),
    ),
    "diffkd": method(
        "The student's map without its noise, which a diffusion model of the teacher's tells, and KD. Huang et al., "
        "NeurIPS 2023, arXiv 2305.15712.",
        imagenet=Setup(
            term("diffkd", latent=1024) | term("kd", temperature=1.0),
            on_imagenet("the authors' README, for logits that go through a diffusion model too", 72.20),
        ),
        cifar100=Setup(
            term("diffkd") | term("kd", temperature=1.0),
            remark="as on ImageNet; half the teacher's channels are between the autoencoder's layers",
        ),
    ),
    "era": method(
        "Expandable residual approximation, beside KD. Yan et al., TNNLS 2025, arXiv 2508.16050.",
        imagenet=Setup(
            term("kd", 2.0, temperature=1.0) | term("era"),
            remark="as the authors' code has it for ResNet-34 and ResNet-18; it scores the branches too",
        ),
    ),
    "fcfd": method(
        "Function-consistent: stages as the later layers of both networks read them, and KD. Liu et al., ICLR 2023, "
        "arXiv 2304.11832.",
        imagenet=Setup(_fcfd_on_imagenet, remark=AUTHORS),
        cifar100=Setup(
            _fcfd_on_cifar100,
            remark="the weights are the authors' for ResNet-56, WRN-40-2, VGG-13 and ShuffleNetV2, of others as of "
            "those alike; stages are paired by number",
        ),
    ),
    "feature_teacher": method(
        "Distances of a teacher's pooled features and last map, without labels, as of DINOv2's. Ranzinger et al., "
        "AM-RADIO, CVPR 2024, arXiv 2312.06709.",
        imagenet=Setup(
            term("feature_distance") | term("map_distance"),
            remark="teacher=timm/vit_small_patch14_dinov2 teachers.teacher.weights=default, scored by neighbours",
            labels=0.0,
            teacher={"head": HeadConfig("none")},
            task="features",
        ),
    ),
    "fitnet": method(
        "FitNets, in a single run as RepDistiller and MDistiller have it. Romero et al., ICLR 2015, arXiv 1412.6550.",
        imagenet=Setup(term("fitnet", 100.0, hint=2), remark=AS_CIFAR),
        cifar100=Setup(term("fitnet", 100.0, hint=2), repdistiller("fitnet")),
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
        cifar100=Setup(
            {},
            repdistiller("fsp"),
            "as in RepDistiller, without the flow from the stem",
            before={"flows": Before(30, term("fsp"))},
        ),
    ),
    "ft": method(
        "Factor transfer: a paraphraser, then the student. Kim et al., NeurIPS 2018, arXiv 1802.04977.",
        imagenet=Setup(
            term("ft", 1000.0),
            on_imagenet("torchdistill's table, the paper's own", 71.43),
            "as torchdistill has it",
            before={"paraphraser": Before(1, term("ft"), 0.01, ("terms.ft.paraphraser",))},
            trainable=("student", "terms.ft.translator"),
            epochs=90,
        ),
        cifar100=Setup(
            term("ft", 200.0, over_channels=True),
            repdistiller("ft"),
            "as RepDistiller has it, whose paraphraser of VGG students starts at 0.05",
            before={"paraphraser": Before(30, term("ft", over_channels=True), 0.01, ("terms.ft.paraphraser",))},
            trainable=("student", "terms.ft.translator"),
        ),
    ),
    "ickd": method(
        "Inter-channel correlation. Liu et al., ICCV 2021, arXiv 2202.03680.",
        imagenet=Setup(term("ickd", 2.5), on_imagenet("the paper, for a weight that may be another", 72.19), AS_CIFAR),
        cifar100=Setup(term("ickd", 2.5), on_cifar100(README, 71.76, 73.89, 75.25, 75.64, 74.33, 73.42), AUTHORS),
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
    "mgd": method(
        "Masked generation. Yang et al., ECCV 2022, arXiv 2205.01529.",
        imagenet=Setup(term("mgd_last", 7e-5, name="mgd"), on_imagenet(README, 71.69, 72.49)),
        cifar100=Setup(term("mgd_last", 7e-5, name="mgd"), remark="the weight is that of ImageNet"),
    ),
    "nst": method(
        "Neuron selectivity transfer. Huang and Wang, 2017, arXiv 1707.01219.",
        imagenet=Setup(term("nst", 50.0), remark=AS_CIFAR),
        cifar100=Setup(term("nst", 50.0), repdistiller("nst")),
    ),
    "ofd": method(
        "Overhaul of feature distillation. Heo et al., ICCV 2019, arXiv 1904.01866.",
        imagenet=Setup(term("ofd", 1e-4), on_imagenet(DKD, 70.81, 71.25), MDISTILLERS, batch_size=128),
        cifar100=Setup(
            term("ofd", 1e-3),
            on_cifar100(KDPP, *(70.98, None, 74.95, None, 74.33, None, 75.98, None, None, 69.04, 76.82)),
            MDISTILLERS,
        ),
    ),
    "pkt": method(
        "Probabilistic knowledge transfer. Passalis and Tefas, ECCV 2018, arXiv 1803.10837.",
        imagenet=Setup(term("pkt", 30000.0), remark=AS_CIFAR),
        cifar100=Setup(term("pkt", 30000.0), repdistiller("pkt")),
    ),
    "reviewkd": method(
        "Knowledge review. Chen et al., CVPR 2021, arXiv 2104.09044.",
        imagenet=Setup(_reviewkd_on_imagenet, on_imagenet(DKD, 71.61, 72.56), "on maps before their ReLUs"),
        cifar100=Setup(
            _reviewkd_on_cifar100,
            on_cifar100(KDPP, *(71.89, None, 75.63, None, 75.09, None, 77.45, None, None, 69.89, 77.78)),
            "weights, batches and Nesterov's momentum are the authors'; MDistiller has half the batches, without",
            batch_size=128,
            optim={"nesterov": True},
        ),
    ),
    "rkd": method(
        "Relational distillation. Park et al., CVPR 2019, arXiv 1904.05068.",
        imagenet=Setup(term("rkd_distance", 25.0) | term("rkd_angle", 50.0), remark=AS_CIFAR),
        cifar100=Setup(term("rkd_distance", 25.0) | term("rkd_angle", 50.0), repdistiller("rkd")),
    ),
    "sdd": method(
        "Scale decoupled distillation, on KD. Wei et al., CVPR 2024, arXiv 2403.13512.",
        imagenet=Setup(
            term("sdd", 0.9, scales=2, temperature=4.0),
            on_imagenet("the authors", None, 72.24),
            "weights and temperature are those of CIFAR-100, which the authors' files leave as they are",
            labels=0.1,
            batch_size=512,
        ),
        cifar100=Setup(_sdd_on_cifar100, labels=0.1),
    ),
    "simkd": method(
        "A student with its teacher's classifier: only the last maps count. Chen et al., CVPR 2022, arXiv 2203.14001.",
        imagenet=Setup(term("simkd"), labels=0, student=lambda *_: {"head": HeadConfig("reused")}, epochs=120),
        cifar100=Setup(term("simkd"), readme(78.08), labels=0, student=lambda *_: {"head": HeadConfig("reused")}),
    ),
    "sp": method(
        "Similarity preserving. Tung and Mori, ICCV 2019, arXiv 1907.09682.",
        imagenet=Setup(term("sp", 3000.0), remark=AS_CIFAR),
        cifar100=Setup(term("sp", 3000.0), repdistiller("sp")),
    ),
    "srd": method(
        "Simple recipe distillation. Miles and Mikolajczyk, AAAI 2024, arXiv 2303.11098.",
        imagenet=Setup(term("srd", 2.0) | term("kd", temperature=1.0), on_imagenet(README, 71.87)),
        cifar100=Setup(term("srd", 2.0) | term("kd", temperature=1.0), remark="the weights are those of ImageNet"),
    ),
    "srrl": method(
        "Softmax regression. Yang et al., ICLR 2021, Knowledge distillation via softmax regression representation "
        "learning.",
        imagenet=Setup(term("srrl"), on_imagenet("the table of TTM's README", 71.73, 72.49)),
        cifar100=Setup(term("srrl")),
    ),
    "vid": method(
        "Variational information distillation. Ahn et al., CVPR 2019, arXiv 1904.05835.",
        imagenet=Setup(term("vid"), remark=AS_CIFAR),
        cifar100=Setup(term("vid"), repdistiller("vid")),
    ),
    "wkd": method(
        "Wasserstein distances of logits, and of features as Gaussians. Lv et al., NeurIPS 2024, arXiv 2412.08139.",
        imagenet=Setup(
            _wkd_on_imagenet,
            on_imagenet(README, 72.76, 73.69),
            f"the weights are those of wkd_l and wkd_f; {COSTS}",
        ),
        cifar100=Setup(_wkd_on_cifar100, on_cifar100(README, None, None, 77.28, *(None,) * 4, 77.50), COSTS),
    ),
    "wkd_f": method(
        "Wasserstein distance of features as Gaussians. Lv et al., NeurIPS 2024, arXiv 2412.08139.",
        imagenet=Setup(_wkd_f_on_imagenet, on_imagenet(README, 72.50, 73.12)),
        cifar100=Setup(_wkd_f_on_cifar100, on_cifar100(README, None, None, 76.77, *(None,) * 4, 77.36)),
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
