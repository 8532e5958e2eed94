"""Write a proven artifact: python tools/export.py CONFIG CHECKPOINT --to onnx|executorch|coreml|litert|torch

With --for transformers.js, and others, the files that the library expects, with no --to.

With --to safetensors the trained weights alone, to give away: classes and checksum inside, nothing that can run.
"""

from effseg.apis import cli


def parser() -> cli.Parser:
    from effseg.apis.export import PROOF_IMAGES
    from effseg.deploy.backends import SUFFIXES
    from effseg.deploy.presets import PRESETS
    from effseg.deploy.spec import FITS, OUTPUTS, PRECISIONS

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument(
        '--for',
        dest='preset',
        choices=PRESETS,
        default='raw',
        help='the library that an app is built on: input, output and what lies beside the file as it expects them',
    )
    parser.add_argument(
        '--to',
        choices=[*SUFFIXES, 'all', 'safetensors'],
        help="the runtime, all of them, or safetensors for the weights alone (default: the library's)",
    )
    parser.add_argument(
        '--backend',
        choices=['xnnpack', 'coreml'],
        default='xnnpack',
        help="of --to executorch: CPUs (default), or Core ML on Apple's devices",
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="of the image, multiples of 32 (default: the config's crop)",
    )
    parser.add_argument(
        '--output',
        choices=OUTPUTS,
        help="the class of every pixel, or the logits at a quarter of the size (default: the library's, raw: labels)",
    )
    parser.add_argument(
        '--fit',
        choices=FITS,
        help='how a photo of another size becomes the image: resized with its proportions and padded, resized without, '
        f"or cut into overlapping windows (default: the library's, raw: {FITS[0]})",
    )
    parser.add_argument(
        '--precision', choices=[*PRECISIONS, 'all'], default='fp32', help='all: as far as a runtime has them'
    )
    parser.add_argument(
        '--calibration',
        type=int,
        default=64,
        metavar='N',
        help='training images that choose the ranges of int8; 0: of weights alone, ExecuTorch finds them in every run',
    )
    parser.add_argument(
        '--images', nargs='+', help="files and folders to compare and calibrate on (default: the config's data)"
    )
    parser.add_argument('--proof-images', type=int, default=PROOF_IMAGES, metavar='N', help='images to compare on')
    parser.add_argument('--unfused', action='store_true', help='export the network as it was trained, to compare with')
    parser.add_argument(
        '--keep-inaccurate',
        action='store_true',
        help='write an fp16, bf16 or int8 file all the same when it costs more accuracy than it may',
    )
    parser.add_argument(
        '-o', '--out', metavar='PATH', help='the artifact, of several their folder (default: beside the checkpoint)'
    )
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(argv: list[str]) -> None:
    from effseg.apis.export import export, export_all
    from effseg.apis.weights import export_weights
    from effseg.checkpoint.read import trusted

    arguments = parser()
    args = arguments.parse_args(argv)
    with trusted(args.trust_checkpoint):
        if args.to == 'safetensors':
            arguments.refuse_others(args, '--to safetensors', 'config checkpoint to out cfg_options trust_checkpoint')
            print(export_weights(args.config, args.checkpoint, args.out, args.cfg_options))
            return
        options = dict(
            size=tuple(args.size) if args.size else None,
            output=args.output,
            fit=args.fit,
            preset=args.preset,
            delegate=None if args.backend == 'xnnpack' else args.backend,
            fuse=not args.unfused,
            images=args.images,
            proof_images=args.proof_images,
            calibration=args.calibration,
            keep_inaccurate=args.keep_inaccurate,
            cfg_options=args.cfg_options,
        )
        run = export_all if 'all' in (args.to, args.precision) else export
        print(run(args.config, args.checkpoint, args.to, args.precision, args.out, **options))


if __name__ == '__main__':
    cli.run(main)
