"""Image models: the paper's residual MLP, a small convolutional network, and a small ResNet-18."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResMLP(nn.Module):
    """Residual MLP on flattened images, ``[B, pixels] -> [B, classes]``.

    Args:
        pixels: Values per image.
        width: Channels of the residual stream.
        blocks: Number of residual blocks.
        classes: Number of classes.
    """

    def __init__(
        self, pixels: int = 64, width: int = 128, blocks: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(pixels, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes."""
        x = self.embed(images.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.head(x)
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the convolutions and the shortcut."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ConvNet(nn.Module):
    """Four stages of two basic blocks, as in ResNet-18, with fewer channels and a 3x3 stem.

    Args:
        width: Channels of the first stage; each later one has twice as many.
        classes: Number of classes.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        channels = [width, *(width * 2**i for i in range(4))]
        self.stages = nn.Sequential(*[
            nn.Sequential(
                BasicBlock(channels[i], channels[i + 1], 1 if i == 0 else 2),
                BasicBlock(channels[i + 1], channels[i + 1], 1),
            )
            for i in range(4)
        ])
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes for images ``[B, 1, height, width]``."""
        x = self.stages(torch.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class SmallConvNet(nn.Module):
    """Four 3x3 convolutions with group norm, for images of 8x8; examples do not see each other.

    Args:
        width: Channels of the first two convolutions, a multiple of 4; the others have twice as
            many.
        classes: Number of classes.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        channels = [1, width, width, 2 * width, 2 * width]
        self.layers = nn.Sequential(*[
            nn.Sequential(
                nn.Conv2d(channels[i], channels[i + 1], 3, stride=1 + i % 2, padding=1, bias=False),
                nn.GroupNorm(4, channels[i + 1]),
                nn.ReLU(),
            )
            for i in range(4)
        ])
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes for images ``[B, 1, height, width]``."""
        logits: Tensor = self.head(self.layers(images).mean((2, 3)))
        return logits
