"""Make a segmenter fit a time: python tools/slim.py CONFIG CHECKPOINT --table table.csv --budget 0.7 --out DIR

Or slice it, or the published weights of its backbone, to an architecture: --arch depths=2,2,4,3 in the place of --table
"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights; with --arch, those of the backbone alone too')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--table', nargs='+', metavar='CSV', help='of tools/latency.py; the first one sets the budget')
    cli.add_pairs(what, '--arch', 'depths, embed_dims, num_vit, hidden_dims or mlp_ratios, head, neck: no search')
    parser.add_argument('--budget', type=float, help="share of the original's time (default: 0.7)")
    parser.add_argument(
        '--search',
        choices=['gradual', 'exhaustive', 'depths'],
        help='action by action (the default); the optimum of the whole space if losses add up; or all depths',
    )
    parser.add_argument('--images', type=int, default=64, metavar='N', help='to judge a candidate on (default: 64)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for config, checkpoint and report')
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    if args.arch and (args.budget is not None or args.search):
        parser.error('--arch names the architecture: nothing is searched for, so --budget and --search are left out')
    from effseg.checkpoint.read import trusted
    from effseg.slimming.given import slim_to
    from effseg.slimming.slim import slim

    with trusted(args.trust_checkpoint):
        if args.arch:
            slim_to(args.config, args.checkpoint, args.arch, args.out, args.images, args.cfg_options)
            return
        slim(
            args.config,
            args.checkpoint,
            args.table,
            0.7 if args.budget is None else args.budget,
            args.out,
            images=args.images,
            search=args.search or 'gradual',
            cfg_options=args.cfg_options,
        )


if __name__ == '__main__':
    cli.run(main)
