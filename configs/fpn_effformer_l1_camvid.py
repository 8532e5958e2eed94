# The worked example of a data set of one's own: EfficientFormer-L1 + Semantic FPN on CamVid. Copy it and
# _base_/datasets/camvid.py, and change classes, palette, ignored label and data root.
_base_ = [
    '_base_/models/fpn_effformer.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/camvid.py',
    '_base_/default_runtime.py',
]
ignore_index = 11
model = dict(
    data_preprocessor=dict(size=(192, 256), seg_pad_val=ignore_index),
    backbone=dict(resolution=8),
    decode_head=dict(
        num_classes=11, ignore_index=ignore_index,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(avg_non_ignore=True)))
log_processor = dict(window_size=10)
