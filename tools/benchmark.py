"""Time the fused segmenter against MMSegmentation's: python tools/benchmark.py configs/fpn_effformer_l1_ade20k.py
--compare

The same on a GPU, by precision and batch: python tools/benchmark.py CONFIG --compare --device cuda --compile

All shipped models side by side, with random weights: python tools/benchmark.py --models

MMSegmentation's own light segmenters through every runtime: python tools/benchmark.py --zoo docs/zoo.md

Ours beside other light segmenters, as files of a runtime: python tools/benchmark.py --rivals onnx --plot rivals.png

Trained ones, their time against their mIoU: python tools/benchmark.py --rivals onnx --scores docs/decoders.csv --plot P

What the runtimes' programs printed on phones, as one table: python tools/benchmark.py --phone OUTPUTS --plot phones.png
"""

from effseg.apis import cli

# by what is done: the other options and arguments that it takes
TAKES = {
    'compare': 'config checkpoint image size runs threads compile cfg_options',
    'models': 'size runs threads',
    'artifacts': 'config checkpoint image runs threads engines cfg_options',
    'rivals': 'size runs threads scores plot',
    'zoo': 'size runs',
    'phone': 'plot',
    'loading': 'config device cfg_options',
}
ON_DEVICE = 'config checkpoint device precision batch size runs compile cfg_options'  # --compare with --device


def parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', nargs='?', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', nargs='?', help='trained weights (default: random ones)')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--compare', action='store_true', help='both segmenters in turn, in one process')
    what.add_argument(
        '--models', action='store_true', help='the same for all shipped models, one line each, to the logits'
    )
    what.add_argument(
        '--artifacts', nargs='+', metavar='PATH', help='exported files in turn; with a config, against its predict'
    )
    what.add_argument(
        '--rivals',
        choices=['onnx', 'executorch', 'litert'],
        help="files of our models and of MMSegmentation's SegFormer-B0 and SegNeXt-T in turn, with random weights",
    )
    what.add_argument(
        '--zoo',
        metavar='PAGE',
        help="MMSegmentation's own light segmenters through every runtime, one row each; goes on where it was ended",
    )
    what.add_argument(
        '--phone',
        nargs='+',
        metavar='OUTPUT',
        help="what the runtimes' own programs printed on phones, one file of text per run, see docs/phone.md",
    )
    what.add_argument(
        '--loading', action='store_true', help='images a second that the training loader of the config gives'
    )
    parser.add_argument(
        '--device',
        help='with --compare, such as cuda: images a second by --precision and --batch; with --loading, where they go',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        default=['fp32', 'fp16', 'bf16'],
        choices=['fp32', 'fp16', 'bf16'],
        help='with --device (default: all)',
    )
    parser.add_argument('--batch', type=int, nargs='+', default=[1, 8], help='with --device (default: 1 8)')
    parser.add_argument(
        '--engines',
        nargs='*',
        choices=['openvino', 'mnn', 'ncnn'],
        help='with --artifacts: the .onnx files in these engines as well, by their own converters (alone: in all)',
    )
    parser.add_argument(
        '--scores',
        metavar='CSV',
        help='with --rivals: compare the segmenters of these trainings, one line each, instead',
    )
    parser.add_argument(
        '--plot',
        metavar='PATH',
        help='with --rivals: an image of the time against the mIoU; with --phone: of the times',
    )
    parser.add_argument('--image', help='an image (default: a drawn scene)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the image (default: 512 512)',
    )
    parser.add_argument('--runs', type=int, default=10, help='of everything that is timed (default: 10)')
    parser.add_argument('--threads', type=int, nargs='+', default=(1, 2), help='thread counts in turn (default: 1 2)')
    parser.add_argument(
        '--compile', action='store_true', help='also the fused network under torch.compile; takes a C++ compiler'
    )
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(argv: list[str]) -> None:
    arguments = parser()
    args = arguments.parse_args(argv)
    from effseg.benchmark.artifacts import compare_artifacts
    from effseg.benchmark.contestants import of_runs
    from effseg.benchmark.engines import ENGINES
    from effseg.benchmark.fused import compare_fused
    from effseg.benchmark.models import compare_models
    from effseg.benchmark.phones import table_of_phones
    from effseg.benchmark.rivals import compare_rivals
    from effseg.benchmark.throughput import compare_on_device, time_loading
    from effseg.benchmark.zoo import score_zoo
    from effseg.checkpoint.read import trusted

    if (args.compare or args.loading) and not args.config:
        arguments.error('--compare and --loading take a config')
    for done, takes in TAKES.items():
        if getattr(args, done):
            takes = takes if done != 'compare' or args.device is None else ON_DEVICE
            arguments.refuse_others(args, f'--{done}', f'{done} trust_checkpoint {takes}')
    size, timed = tuple(args.size), (args.runs, tuple(args.threads))
    with trusted(args.trust_checkpoint):
        if args.models:
            compare_models(None, size, *timed)
        elif args.rivals:
            contestants = of_runs(args.scores) if args.scores else None
            compare_rivals(args.rivals, size, *timed, args.plot, contestants)
        elif args.phone:
            table_of_phones(args.phone, args.plot)
        elif args.zoo:
            score_zoo(args.zoo, size, args.runs)
        elif args.loading:
            time_loading(args.config, args.device or 'cpu', cfg_options=args.cfg_options)
        elif args.artifacts:
            engines = () if args.engines is None else args.engines or tuple(ENGINES)
            given = (args.config, args.checkpoint, args.image)
            compare_artifacts(args.artifacts, *given, *timed, args.cfg_options, engines)
        elif args.device:
            compare_on_device(
                args.config,
                args.checkpoint,
                args.device,
                args.precision,
                args.batch,
                size,
                args.runs,
                args.compile,
                args.cfg_options,
            )
        else:
            given = (args.config, args.checkpoint, args.image)
            compare_fused(*given, size, *timed, args.compile, args.cfg_options)


if __name__ == '__main__':
    cli.run(main)
