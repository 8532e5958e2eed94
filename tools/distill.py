"""Teach a backbone what a pretrained network sees, from images without labels:
python tools/distill.py CONFIG --teacher tf_efficientnet_lite0.in1k

What it writes is for model.backbone.init_cfg = dict(type='Pretrained', checkpoint='backbone.safetensors').
"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.distill import distill
    from effseg.checkpoint.read import trusted

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('--teacher', required=True, help='name of a network of timm with maps at strides 4, 8, 16, 32')
    parser.add_argument(
        '--teacher-weights', metavar='FILE', help="weights in timm's names (default: those that timm fetches)"
    )
    parser.add_argument('--images', metavar='DIR', help="folder of images (default: the config's training images)")
    parser.add_argument('--resume', action='store_true', help='continue from the newest checkpoint of the work dir')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--work-dir', metavar='DIR', help='for logs, checkpoints and backbone.safetensors')
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    with trusted(args.trust_checkpoint):
        path = distill(
            args.config,
            args.teacher,
            images=args.images,
            teacher_weights=args.teacher_weights,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            cfg_options=args.cfg_options,
        )
    print(f'{path}: give it as model.backbone.init_cfg.checkpoint')


if __name__ == '__main__':
    cli.run(main)
