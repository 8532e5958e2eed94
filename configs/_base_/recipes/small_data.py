# A few hundred images, from ImageNet weights: the head learns ten times as fast as the backbone, the weights that are
# scored and saved are the mean over some hundred iterations, and a training that no longer improves ends.
# A config on top of this sets iterations: param_scheduler, train_cfg and the checkpoint hook's interval.
_base_ = '../schedules/adamw_40k.py'
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(decode_head=dict(lr_mult=10.0), neck=dict(lr_mult=10.0))))
custom_hooks = [
    dict(type='ResumableEMAHook', ema_type='WarmAverage', momentum=0.005, update_buffers=True),
    dict(type='EarlyStoppingHook', monitor='mIoU', rule='greater', min_delta=0.1, patience=10),
]
