# The network of tiny.py by epochs of three iterations, for tests alone.
_base_ = 'tiny.py'
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=4, val_interval=2)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=4, by_epoch=True)]
default_hooks = dict(
    checkpoint=dict(by_epoch=True, interval=2, max_keep_ckpts=1), logger=dict(log_metric_by_epoch=True)
)
