"""One HTML file about a segmenter: python tools/report.py CONFIG CHECKPOINT_OR_ARTIFACT... [--fused]"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.checkpoint.read import trusted
    from effseg.report.build import SHOWN, report

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument(
        'weights', nargs='+', help='checkpoints and artifacts; the first is shown in full, the others beside it'
    )
    parser.add_argument('--fused', action='store_true', help='add the fused form of every checkpoint')
    parser.add_argument(
        '--out', metavar='DIR', help='folder for report.html (default: report/ beside the first of them)'
    )
    parser.add_argument('--work-dir', help="of the training, for its curve (default: the first one's folder)")
    parser.add_argument(
        '--pictures',
        type=int,
        default=SHOWN,
        metavar='N',
        help='how many images of the worst, and of the best (default: %(default)s)',
    )
    cli.add_unknown_option(parser)
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    with trusted(args.trust_checkpoint):
        path = report(
            args.config,
            args.weights,
            args.out,
            args.fused,
            args.work_dir,
            args.pictures,
            args.cfg_options,
            args.unknown_below,
        )
    print(f'report: {path.resolve().as_uri()}')


if __name__ == '__main__':
    cli.run(main)
