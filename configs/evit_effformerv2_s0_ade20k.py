# EfficientFormerV2-S0 + EfficientViT's head on ADE20K. Published: no mIoU
_base_ = [
    '_base_/models/evit_effformerv2.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/default_runtime.py',
]
crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='s0',
        resolution=16,  # crop / 32: every offset of a training crop has its own bias
        init_cfg=dict(type='Pretrained', checkpoint='timm/efficientformerv2_s0.snap_dist_in1k')),
    decode_head=dict(in_channels=[48, 96, 176], num_classes=150))
