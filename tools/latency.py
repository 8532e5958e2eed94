"""Measure what each part of a network takes: python tools/latency.py CONFIG --runtime onnx --size 512 512 -o table.csv

For another device: --emit DIR writes its files, and --from CSV --emit DIR reads its times back.
"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('--runtime', choices=['onnx', 'executorch', 'litert'], default='onnx')
    parser.add_argument(
        '--size', nargs=2, type=int, default=(512, 512), metavar=('H', 'W'), help='of the image, multiples of 32'
    )
    parser.add_argument('--threads', type=int, default=1, help='of the runtime (default: 1)')
    parser.add_argument('--runs', type=int, default=15, help='of each file, of which the fastest counts (default: 15)')
    parser.add_argument('-o', '--out', metavar='CSV', help='the table; rows that it has already are kept')
    parser.add_argument('--verify', type=int, metavar='N', help='predict and measure N random architectures as well')
    parser.add_argument('--emit', metavar='DIR', help='write the files for another device instead of measuring them')
    parser.add_argument(
        '--from',
        dest='measured',
        metavar='CSV',
        help='with --emit DIR of an earlier call: the times of its files, in the columns file and ms',
    )
    parser.add_argument('--device', default='another device', help='with --from: its name, for the table')
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    from effseg.slimming.latency import emit, measure, read_back, verify

    if args.measured:
        parser.refuse_others(args, '--from', 'config measured emit out device threads cfg_options')
        if not args.emit or not args.out:
            parser.error('--from takes --emit DIR, where the files are, and -o for the table')
        read_back(args.config, args.emit, args.measured, args.out, args.device, args.threads, args.cfg_options)
    elif args.emit:
        parser.refuse_others(args, '--emit', 'config runtime size emit cfg_options')
        print(emit(args.config, args.runtime, tuple(args.size), args.emit, args.cfg_options))
        return
    elif not args.out:
        parser.error('-o names the table')
    else:
        parser.refuse_others(args, 'without --from it', 'config runtime size threads runs out verify cfg_options')
        if args.verify is not None and args.verify < 1:
            parser.error(f'--verify {args.verify} must be 1 or more')
        size = tuple(args.size)
        table = measure(args.config, args.runtime, size, args.out, args.threads, args.runs, args.cfg_options)
        if args.verify:
            verify(args.config, table, args.verify, args.runs, args.cfg_options)
    print(f'table: {args.out}')


if __name__ == '__main__':
    cli.run(main)
