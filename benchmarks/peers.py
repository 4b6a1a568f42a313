"""The same networks in torch, written apart: FCN-8s and U-Net with `padding="same"`."""

import itertools

import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, size=3):
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU())


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015), padded, for sides that are multiples of 16."""

    def __init__(self, classes=2, filters=(64, 128, 256, 512, 1024)):
        super().__init__()
        widths = [3, *filters]
        self.down = nn.ModuleList(
            nn.Sequential(conv(a, b), conv(b, b)) for a, b in zip(widths, filters, strict=False)
        )
        pairs = list(itertools.pairwise(filters))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(nn.Sequential(conv(2 * a, a), conv(a, a)) for a, _ in pairs)
        self.score = nn.Conv2d(filters[0], classes, 1)

    def forward(self, x):
        x = x / 127.5 - 1
        skips = []
        for level in self.down:
            x = level(x if not skips else functional.max_pool2d(x, 2))
            skips.append(x)
        levels = list(zip(self.up, self.merge, skips[:-1], strict=True))
        for up, merge, skip in reversed(levels):
            x = merge(torch.cat([skip, up(x)], 1))
        return torch.softmax(self.score(x), 1)


class FCN8s(nn.Module):
    """FCN-8s (Long et al. 2015) on VGG16, padded, for sides that are multiples of 32."""

    BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

    def __init__(self, classes=21, fc_filters=4096):
        super().__init__()
        blocks, width = [], 3
        for filters, count in self.BLOCKS:
            layers = [conv(width, filters), *[conv(filters, filters) for _ in range(count - 1)]]
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            width = filters
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(conv(512, fc_filters, 7), conv(fc_filters, fc_filters, 1))
        self.scores = nn.ModuleList(nn.Conv2d(n, classes, 1) for n in (fc_filters, 512, 256))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 2 * s, stride=s, padding=s // 2, bias=False)
            for s in (2, 2, 8)
        )

    def forward(self, x):
        pools = []
        for block in self.blocks:
            x = block(x)
            pools.append(x)
        score = self.up[0](self.scores[0](self.head(x))) + self.scores[1](pools[3])
        score = self.up[1](score) + self.scores[2](pools[2])
        return torch.softmax(self.up[2](score), 1)
