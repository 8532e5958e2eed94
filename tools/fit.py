"""From a folder of labels to a trained and proven file: python tools/fit.py my_labels --out work_dirs/mine"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.convert import FORMATS
    from effseg.apis.fit import MODEL, fit
    from effseg.deploy.backends import SUFFIXES
    from effseg.report.build import report

    parser = cli.Parser(description=__doc__)
    parser.add_argument('data', help='folder of images and labels, which is only read; or what tools/convert.py wrote')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write into')
    parser.add_argument('--model', default=MODEL, help='a shipped config, without _ade20k.py (default: %(default)s)')
    parser.add_argument('--budget', default='1h', help='of the training: 30m, 2h, or iterations (default: %(default)s)')
    parser.add_argument('--for', dest='to', choices=SUFFIXES, default='onnx', help='runtime of the file')
    parser.add_argument('--weights', metavar='FILE', help="ImageNet weights (default: the hub's, if it can be reached)")
    parser.add_argument('--dry-run', action='store_true', help='end when the config is written')
    parser.add_argument('--from', dest='form', choices=FORMATS, help='format of the labels (default: found out)')
    cli.add_label_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    fit(
        args.data,
        args.out,
        model=args.model,
        budget=args.budget,
        to=args.to,
        weights=args.weights,
        dry_run=args.dry_run,
        report=report,
        form=args.form,
        mapping=args.classes,
        background=args.background,
        leave_out=args.leave_out,
        seed=args.seed,
    )


if __name__ == '__main__':
    cli.run(main)
