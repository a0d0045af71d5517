"""One page a method, for ResNet-34 to ResNet-18 and ResNet-50 to MobileNetV1."""
