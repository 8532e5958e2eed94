# half an hour of one CPU core with EfficientFormerV2-S0
_base_ = './camvid.py'
iterations = 600  # a GPU user sets more, here and in the scheduler
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations)
