# EfficientFormer-L7 + Semantic FPN on ADE20K. Published: 45.1 mIoU (8 GPUs x 4 images, 40,000 iterations)
_base_ = [
    '_base_/models/fpn_effformer.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/default_runtime.py',
]
crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='l7',
        resolution=16,  # crop / 32: every offset of a training crop has its own bias
        init_cfg=dict(type='Pretrained', checkpoint='timm/efficientformer_l7.snap_dist_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]),
    decode_head=dict(num_classes=150))
