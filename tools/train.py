"""Train a segmenter: python tools/train.py configs/fpn_effformer_l1_ade20k.py"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.train import train
    from effseg.checkpoint.read import trusted

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('--resume', action='store_true', help='continue from the newest checkpoint of the work dir')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--skip-bad-samples',
        type=int,
        default=0,
        metavar='N',
        help='leave out up to N samples that cannot be used, by name',
    )
    parser.add_argument('--no-data-check', action='store_true', help='do not read a few images and label maps first')
    cli.add_protect_option(parser)
    cli.add_trust_option(parser)
    cli.add_run_options(parser)
    args = parser.parse_args(argv)
    with trusted(args.trust_checkpoint):
        train(
            args.config,
            args.work_dir,
            args.resume,
            args.amp,
            args.cfg_options,
            args.launcher,
            args.skip_bad_samples,
            not args.no_data_check,
            not args.no_protect,
        )


if __name__ == '__main__':
    cli.run(main)
