# EfficientFormerV2-L + Semantic FPN on ADE20K. Published: 45.2 mIoU (8 GPUs x 4 images, 40,000 iterations)
_base_ = [
    '_base_/models/fpn_effformerv2.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_40k_v2.py',
    '_base_/default_runtime.py',
]
crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='l',
        drop_path_rate=0.1,
        resolution=16,  # crop / 32: every offset of a training crop has its own bias
        init_cfg=dict(type='Pretrained', checkpoint='timm/efficientformerv2_l.snap_dist_in1k')),
    neck=dict(in_channels=[40, 80, 192, 384]),
    decode_head=dict(num_classes=150))
