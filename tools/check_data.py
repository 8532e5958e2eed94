"""Look at a config's data before training: python tools/check_data.py configs/fpn_effformer_l1_ade20k.py"""

import sys

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.check_data import check_data

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('--split', choices=['train', 'val', 'test'], help='look at one split alone (default: all)')
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    parser.add_argument('--json', metavar='FILE', help='write the whole report there')
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    if not check_data(args.config, args.split, args.workers, args.json, args.cfg_options):
        sys.exit(1)


if __name__ == '__main__':
    cli.run(main)
