# EfficientFormerV2-S0 + SegFormer's all-MLP head on CamVid, trained like fpn_effformerv2_s0_camvid.py
_base_ = [
    '_base_/models/mlp_effformerv2.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/default_runtime.py',
]
iterations = 600  # what one CPU core does in half an hour; a GPU user sets more
ignore_index = 11
model = dict(
    data_preprocessor=dict(size=(192, 256), seg_pad_val=ignore_index),
    backbone=dict(resolution=8),
    decode_head=dict(
        num_classes=11,
        ignore_index=ignore_index,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(avg_non_ignore=True)))
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=1e-2))  # light decoders want a larger one than FPN
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval=200)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200, max_keep_ckpts=1))
log_processor = dict(window_size=10)
