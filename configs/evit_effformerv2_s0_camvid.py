# EfficientFormerV2-S0 + EfficientViT's head on CamVid, trained like fpn_effformerv2_s0_camvid.py
_base_ = [
    '_base_/models/evit_effformerv2.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/camvid_v2.py',
    '_base_/default_runtime.py',
]
ignore_index = 11
model = dict(
    data_preprocessor=dict(size=(192, 256), seg_pad_val=ignore_index),
    backbone=dict(resolution=8),
    decode_head=dict(
        num_classes=11,
        ignore_index=ignore_index,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(avg_non_ignore=True)))
optim_wrapper = dict(optimizer=dict(lr=2e-3))  # light decoders want a larger one than FPN
log_processor = dict(window_size=10)
