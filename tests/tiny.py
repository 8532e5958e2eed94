# A network of seconds on the built-in scenes, with the augmentation of the ADE20K recipe, for tests alone.
_base_ = [
    '../configs/_base_/models/fpn_effformer.py',
    '../configs/_base_/datasets/demo.py',
    '../configs/_base_/schedules/adamw_40k.py',
    '../configs/_base_/default_runtime.py',
]
iterations = 8
crop_size = (32, 32)
dims = [8, 16, 24, 32]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(_delete_=True, depths=(1, 1, 1, 1), embed_dims=dims, num_vit=1), resolution=2, drop_path_rate=0.1
    ),
    neck=dict(in_channels=dims, out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16, num_classes=8, norm_cfg=dict(type='BN')),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(96, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=iterations, by_epoch=False)]
train_cfg = dict(max_iters=iterations, val_interval=4)
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=2, max_keep_ckpts=1))
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
