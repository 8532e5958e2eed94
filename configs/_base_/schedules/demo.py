# minutes on two CPU cores, from random weights
_base_ = './adamw_40k.py'
iterations = 300
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, betas=(0.9, 0.99)),
    paramwise_cfg=dict(custom_keys=dict(gamma=dict(lr_mult=20.0))))  # layer scales start at 1e-5, with no time to lose
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=10, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=10, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval=100)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1))
