# the reference recipe: AdamW on everything, no warm-up, poly 0.9 to 0, 8 GPUs x 4 images x 40,000 iterations
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]
train_cfg = dict(type='ResumableIterLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=4000, max_keep_ckpts=3, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    # a line for the terminal; a run that resumes exactly, ends at a loss that is not finite, and saves when stopped
    progress=dict(type='ProgressHook'),
    iteration_seed=dict(type='IterationSeedHook'),
    finite=dict(type='FiniteHook'),
    due_validation=dict(type='DueValidationHook'),
    stop=dict(type='StopHook'))
