"""Score a checkpoint or an exported file: python tools/test.py configs/fpn_effformer_l1_ade20k.py CHECKPOINT"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.test import test
    from effseg.checkpoint.read import trusted
    from effseg.deploy.spec import FITS
    from effseg.segmentors.artifact import AS_CONFIG

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights, or an exported file')
    parser.add_argument('--out', help='folder for the predicted label maps')
    parser.add_argument('--show-dir', help='folder for overlay images')
    parser.add_argument('--tta', action='store_true', help='average over scales and flips')
    parser.add_argument(
        '--fused', action='store_true', help='score the fused form of the model: the same labels, faster'
    )
    cli.add_precision_option(parser)
    parser.add_argument(
        '--fit',
        choices=[*FITS, AS_CONFIG],
        help="of an exported file: how photos of another size go through (default: the file's own fit, as in an app); "
        "config: the config's test pipeline, to compare with the checkpoint",
    )
    cli.add_protect_option(parser)
    cli.add_trust_option(parser)
    cli.add_run_options(parser)
    args = parser.parse_args(argv)
    with trusted(args.trust_checkpoint):
        test(
            args.config,
            args.checkpoint,
            args.work_dir,
            args.out,
            args.show_dir,
            args.tta,
            args.cfg_options,
            args.launcher,
            args.fused,
            not args.no_protect,
            args.fit,
            args.precision,
        )


if __name__ == '__main__':
    cli.run(main)
