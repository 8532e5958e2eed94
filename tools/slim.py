"""Make a segmenter fit a time: python tools/slim.py CONFIG CHECKPOINT --table table.csv --budget 0.7 --out DIR"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument('--table', required=True, metavar='CSV', help='of tools/latency.py')
    parser.add_argument('--budget', type=float, default=0.7, help="share of the original's time (default: 0.7)")
    parser.add_argument(
        '--search',
        choices=['gradual', 'exhaustive', 'depths'],
        default='gradual',
        help='action by action; the optimum of the whole space if losses add up; or all combinations of depths',
    )
    parser.add_argument('--images', type=int, default=64, metavar='N', help='to judge a candidate on (default: 64)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for config, checkpoint and report')
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    from effseg.checkpoint.read import trusted
    from effseg.slimming.slim import slim

    with trusted(args.trust_checkpoint):
        slim(
            args.config,
            args.checkpoint,
            args.table,
            args.budget,
            args.out,
            images=args.images,
            search=args.search,
            cfg_options=args.cfg_options,
        )


if __name__ == '__main__':
    cli.run(main)
