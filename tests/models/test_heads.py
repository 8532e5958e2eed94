"""Our decode heads, against what they extend."""

import torch
from mmseg.models.decode_heads import SegformerHead

from effseg.models.heads import DepthwiseSegformerHead, EfficientViTHead

OPTIONS = dict(in_channels=[4, 6], in_index=[0, 1], channels=8, num_classes=5, norm_cfg=dict(type='BN'), act_cfg=None)
MAPS = [torch.randn(2, 4, 12, 20), torch.randn(2, 6, 6, 10)]


def test_without_its_conv_it_is_the_all_mlp_head():
    theirs, ours = SegformerHead(**OPTIONS).eval(), DepthwiseSegformerHead(**OPTIONS).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {name.rsplit('.', 2)[0] for name in missing.missing_keys} == {'fusion_conv.mixing'}
    torch.nn.init.zeros_(ours.fusion_conv.mixing.conv.weight)
    torch.testing.assert_close(ours(MAPS), theirs(MAPS))


def test_a_pixel_sees_two_to_each_side():
    head = DepthwiseSegformerHead(**OPTIONS).eval()
    with torch.no_grad():
        changed = [MAPS[0].clone(), MAPS[1]]
        changed[0][:, :, 6, 9] += 100
        rows, columns = ((head(MAPS) - head(changed)).abs().sum((0, 1)) > 0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 7, 11)


def test_both_convs_learn():
    head = DepthwiseSegformerHead(**OPTIONS)
    head(MAPS).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.fusion_conv.parameters())


def test_efficientvit_s_head_has_the_parameters_of_its_blocks():
    """Of EfficientViT-B1's widths: levels, three blocks, the last conv, classes."""
    dims, width, channels, classes = (64, 128, 256), 64, 256, 150
    head = EfficientViTHead(
        width=width,
        in_channels=dims,
        in_index=[0, 1, 2],
        channels=channels,
        num_classes=classes,
        norm_cfg=dict(type='BN'),
    )
    hidden = 4 * width
    convs = sum(dims) * width + 3 * (2 * width * hidden + 9 * hidden) + width * channels + channels * classes + classes
    norms = 2 * (3 * width + 3 * (2 * hidden + width) + channels)
    assert sum(parameter.numel() for parameter in head.parameters()) == convs + norms
    head([torch.randn(2, dim, side, side) for dim, side in zip(dims, (8, 4, 2))]).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
