"""Networks for images of 32 x 32 pixels, by name: those of the RepDistiller and MDistiller model zoos."""

from collections.abc import Callable

from models.cifar.mobilenet import MOBILENETS
from models.cifar.resnet import RESNETS
from models.cifar.resnet_large import LARGE_RESNETS
from models.cifar.shufflenet import SHUFFLENETS
from models.cifar.vgg import VGGS
from models.cifar.wrn import WIDE_RESNETS
from models.outputs import Body

CIFAR: dict[str, Callable[..., Body]] = {
    **RESNETS,
    **LARGE_RESNETS,
    **WIDE_RESNETS,
    **VGGS,
    **MOBILENETS,
    **SHUFFLENETS,
}
