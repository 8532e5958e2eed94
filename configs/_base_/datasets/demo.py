# The built-in set of drawn scenes: python -m effseg.demo data/demo
# Where it is: the environment variable DEMO_ROOT, this default, or --cfg-options data_root=...
data_root = '{{$DEMO_ROOT:data/demo}}'
dataset = dict(
    type='GuardedDataset',
    dataset_type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(
        classes=('sky', 'sun', 'hill', 'grass', 'road', 'tree', 'house', 'car'),
        palette=[[110, 180, 230], [255, 215, 40], [150, 120, 170], [140, 200, 90], [125, 125, 135], [30, 125, 60],
                 [215, 120, 60], [215, 40, 70]]))
crop_size = (128, 192)
# transparent images on white, label maps turned along with their images
load_image = dict(type='LoadImageFromFile', backend_args=dict(backend='on_white'))
train_pipeline = [
    load_image,
    dict(type='LoadLabelMap'),
    dict(type='RandomResize', scale=(288, 192), ratio_range=(0.7, 1.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    load_image,
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadLabelMap'),
    dict(type='PackSegInputs')
]
tta_pipeline = [
    load_image,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0., 1.)],
            [dict(type='LoadLabelMap')],
            [dict(type='PackSegInputs')],
        ])
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,  # drawn scenes load in milliseconds; both cores train
    sampler=dict(type='SeededSampler', sampler_type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline,
        **dataset))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='SeededSampler', sampler_type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline,
        **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
