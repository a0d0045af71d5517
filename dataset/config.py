"""The settings of data: where the images are and how they are cropped and augmented."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from utils.errors import UsageError
from utils.settings import about, check, setting, show

PIXELS = 1  # raised whenever a view of one record and one draw comes to other pixels than before
_TIMMS_MOST = 10  # of its magnitudes
STEP = 32  # pixels, of which the sides of a batch are multiples where images have their own shapes


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are cropped and augmented."""

    data_path: str = field(metadata=about(affects_result=False))
    """what holds train and val: LMDB shards of img2lmdb.py (a folder, or a URL such as s3://bucket/imagenet), WSLD's
    LMDB folders, or plain class folders"""
    batch_size: int = setting(256, least=1, also=("bs", "b", "batch"))
    """images a training step, over all ranks and accumulated parts"""
    num_workers: int = setting(8, least=0, most=1024, affects_result=False, also=("workers", "j"))
    """decoding processes of each rank; 0 decodes in the training process"""
    train_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/train holds: LMDB or plain image folders"""
    val_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/val holds"""
    train_split: str = "train"
    """folder of the training split below data_path (train_256 after packing with --image_size 256)"""
    val_split: str = "val"
    """folder of the validation split below data_path"""
    classes: tuple[str, ...] = ()
    """names of the classes that are learned, in the order of the outputs, of data with several classes an image; all
    of the data, in its order, when not given"""
    input_size: int = setting(224, least=1, most=16384, also=("img_size", "image_size", "crop_size"))
    """side of the square that the networks see, pixels"""
    type_of_data_aug: Literal["random_sized", "rand_scale", "pad_crop", "squash", "short_side", "none"] = "random_sized"
    """training crop: random_sized (RandomResizedCrop), rand_scale (random short side, random crop), pad_crop (random
    crop of the image in a black frame: CIFAR's), squash (the whole image, whatever its shape), short_side (detection's:
    the whole image in its shape, at a random size, in batches of similar shapes), none (as val)"""
    scale: tuple[float, float] = setting(
        (0.08, 1.0), above=0, most=1, rising=True, used_with={"type_of_data_aug": ("random_sized",)}
    )
    """random_sized: share of the image's area, lowest and highest"""
    ratio: tuple[float, float] = setting(
        (3 / 4, 4 / 3), least=0.001, most=1000, rising=True, used_with={"type_of_data_aug": ("random_sized",)}
    )
    """random_sized: width over height, lowest and highest"""
    rand_scale: tuple[int, int] = setting(
        (256, 480), least=1, most=16384, rising=True, used_with={"type_of_data_aug": ("rand_scale",)}
    )
    """rand_scale: shortest and longest short side, pixels"""
    pad: int = setting(4, least=0, most=16384, used_with={"type_of_data_aug": ("pad_crop",)})
    """pad_crop: width of the frame, pixels"""
    short_sides: tuple[int, ...] = setting(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        least=1,
        most=16384,
        rising=True,
        used_with={"type_of_data_aug": ("short_side",)},
    )
    """short_side: lengths among which that of the short side is drawn, pixels"""
    longest_side: int = setting(1333, least=1, most=16384)
    """short_side, in training and validation: most pixels of the long side; a longer image is shrunk further"""
    largest_crop: int = setting(0, least=0, most=16384, used_with={"type_of_data_aug": ("short_side",)})
    """short_side: most pixels a side of a random crop of that image, where memory is small; 0 shows all of it"""
    decode: Literal["planes", "exact"] = "planes"
    """planes (luma and chroma are resized each from its own resolution, which is fast and differs from the other in
    rounding), exact (the pixels of a stock decoder, resized as Pillow does)"""
    resize: Literal["antialias", "area", "linear"] = "antialias"
    """training: antialias (Pillow's bilinear), or OpenCV's area or linear, which aliases; both decode as exact does"""
    flip: bool = True
    """mirror half of the training images"""
    color_jitter: float = setting(0.0, least=0, most=100)
    """strength of brightness, contrast and saturation jitter (WSLD's data.color: 0.4); 0 is none"""
    auto_augment: Literal["none", "ra", "ta_wide", "ra_timm"] = setting("none", also=("aa", "trivialaugment"))
    """distort training images: ra (torchvision's RandAugment, two operations), ta_wide (its TrivialAugmentWide, one),
    ra_timm (timm's rand-m9-mstd0.5-inc1, two, each with an even chance), none"""
    ra_magnitude: float = setting(9.0, least=0, most=30, used_with={"auto_augment": ("ra", "ra_timm")})
    """ra: strength of the operations, to 30; ra_timm: to 10"""
    ra_magnitude_std: float = setting(0.5, least=0, most=100, used_with={"auto_augment": ("ra_timm",)}, also=("mstd",))
    """ra_timm: standard deviation of the strength"""
    random_erase: float = setting(0.0, least=0, most=1, also=("reprob", "random_erasing"))
    """share of the training images of which a box is erased; 0 is none"""
    erase_mode: Literal["const", "rand", "pixel"] = setting("const", also=("remode",))
    """what fills such a box: const (ImageNet's mean colour), rand (a random colour), pixel (one for each pixel)"""
    cutout: float = setting(0.0, least=0, most=1)
    """side of a square of one random colour in each training image, as a share of the image's; 0 is none"""
    randaugment: bool = False
    """distort training images by two operations of RandAugment, each with an even chance, as L2D and CPSD do"""
    mixup: float = setting(0.0, least=0, most=1000)
    """alpha of mixup: images of a batch are blended in shares drawn from Beta(alpha, alpha); 0 is none"""
    cutmix: float = setting(0.0, least=0, most=1000)
    """alpha of cutmix: a box of another image, of a share drawn likewise; with both, each image has one of them"""
    strong_view: bool = False
    """also give each training image in a strongly distorted view (RandAugment, cutout), for mlkd and crld"""
    repeats: int = setting(1, least=1, most=1024, also=("aug_repeats", "repeated_aug"))
    """repeated augmentation: how often a training batch shows each of its images, with draws of its own; an epoch has
    as many steps as with 1, and shows as many times fewer images (DeiT: 3)"""
    epochs_of_views: int = setting(0, least=0)
    """epochs after which the views of the images come again, in another order, so that stored teacher outputs of as
    many epochs serve any number; 0 never shows one again"""
    order: Literal["shuffle", "blocks"] = "shuffle"
    """training: shuffle the whole split, or blocks of neighbouring records, for data larger than memory or the cache"""
    open_shards: int = setting(16, least=1, used_with={"order": ("blocks",)})
    """order=blocks: shards that are read at a time; pack with --shuffle, or each holds few classes"""
    cache_path: str = setting("~/.cache/limbeck", affects_result=False)
    """data behind a URL: folder of this machine for the shards in use, shared by all ranks"""
    cache_gb: float = setting(200.0, above=0, most=10**9, affects_result=False)
    """data behind a URL: size of that folder, 10^9 bytes"""
    val_crop: Literal["center", "squash", "short_side"] = "center"
    """validation: the centre of the image, the whole image squashed to the square, or the whole image in its shape"""
    val_resize: int = setting(256, least=1, most=16384, used_with={"val_crop": ("center", "short_side")})
    """validation: short side, before a centre crop of input_size, pixels"""
    val_batch_size: int = setting(256, least=1, affects_result=False)
    """images a validation batch of each rank"""
    on_fault: Literal["stop", "skip"] = setting("stop", affects_result=False)
    """a damaged record, or a decoding process that dies or hangs: stop the run, or report it and continue without"""
    worker_timeout: float = setting(300.0, above=0, affects_result=False)
    """seconds on one image after which a decoding process counts as hanging"""

    @property
    def val_side(self) -> int:
        """Side of a square image in validation, pixels."""
        if self.val_crop == "short_side":
            return -(-min(self.val_resize, self.longest_side) // STEP) * STEP
        return self.input_size

    def check(self) -> None:
        """Raises UsageError where a value is out of its range, or two do not go together."""
        check(self, "data.")
        if self.type_of_data_aug == "rand_scale" and self.rand_scale[0] < self.input_size:
            raise UsageError(f"data.rand_scale={show(self.rand_scale)}: at least data.input_size={self.input_size}")
        if self.type_of_data_aug == "short_side":
            self._check_short_side()
        if self.auto_augment == "ra_timm" and self.ra_magnitude > _TIMMS_MOST:
            raise UsageError(
                f"data.ra_magnitude={show(self.ra_magnitude)}: at most {_TIMMS_MOST} with data.auto_augment=ra_timm"
            )
        if self.batch_size % self.repeats:
            raise UsageError(
                f"data.batch_size={self.batch_size} shows each image data.repeats={self.repeats} times: it must be a "
                "multiple of that"
            )
        if self.strong_view and (self.mixup or self.cutmix):
            raise UsageError("data.strong_view shows each image twice, not mixed: set data.mixup=0 data.cutmix=0")

    def _check_short_side(self) -> None:
        plain = DataConfig(self.data_path)
        square = ("color_jitter", "auto_augment", "random_erase", "cutout", "randaugment", "mixup", "cutmix")
        used = [name for name in (*square, "strong_view", "repeats") if getattr(self, name) != getattr(plain, name)]
        if used:
            shown = ", ".join(f"data.{name}={show(getattr(self, name))}" for name in used)
            raise UsageError(f"{shown}: not with data.type_of_data_aug=short_side, whose images differ in size")
        if not self.short_sides:
            raise UsageError("data.short_sides: at least one length, pixels")
        if self.resize != "antialias":
            raise UsageError(f"data.resize={self.resize}: data.type_of_data_aug=short_side resizes by antialias alone")
