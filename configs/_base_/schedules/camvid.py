# AdamW with a warm-up, as long as one CPU core takes an hour for with EfficientFormer-L1
_base_ = './adamw_40k.py'
iterations = 1000  # a GPU user sets more, here and in the scheduler
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=1e-2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval=200)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200, max_keep_ckpts=1))
