"""The network `proposed` in native PyTorch: a peer, not a part of the package."""

from torch import nn


def proposed(size: int = 150, classes: int = 2) -> nn.Sequential:
    """Return the twin: (N, 3, size, size) in, scores (N, classes) out; as many weights as the network in Keras."""
    layers: list[nn.Module] = []
    channels, edge = 3, size
    for count, filters, pooled in zip(
        (3, 3, 2, 2, 2, 2), (32, 64, 128, 256, 384, 512), (1, 1, 0, 1, 1, 1), strict=True
    ):
        for _ in range(count):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(filters)]
            channels = filters
        if pooled:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            edge = -(-edge // 2)
    layers += [nn.Flatten(), nn.Linear(channels * edge * edge, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    layers += [nn.Linear(4096, 1000), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(1000, classes)]
    return nn.Sequential(*layers)
