# EfficientFormerV2-S0 + SegFormer's all-MLP head on the built-in scenes: random weights, minutes on two cores.
_base_ = [
    '_base_/models/mlp_effformerv2.py',
    '_base_/datasets/demo.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/default_runtime.py',
]
iterations = 300
model = dict(
    data_preprocessor=dict(size=(128, 192)),
    decode_head=dict(
        num_classes=8,
        norm_cfg=dict(type='BN'),  # also over several processes: CPUs have no SyncBN
        loss_decode=dict(class_weight=[1.0, 4.0, 2.0, 1.0, 1.0, 1.5, 2.0, 3.0])))  # small things are few pixels
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, betas=(0.9, 0.99)),
    paramwise_cfg=dict(custom_keys=dict(gamma=dict(lr_mult=20.0))))  # layer scales start at 1e-5, with no time to lose
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=10, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=10, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval=100)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1))
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
log_processor = dict(window_size=10)
