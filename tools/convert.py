"""Images and label maps out of labels as a tool wrote them: python tools/convert.py my_labels --out data/mine"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.convert import FORMATS, convert, table

    parser = cli.Parser(description=__doc__)
    parser.add_argument('source', help='folder of images and labels; it is only read')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write into')
    parser.add_argument('--from', dest='form', choices=FORMATS, help='format of the labels (default: found out)')
    cli.add_label_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    print(table(convert(args.source, args.out, args.form, args.classes, args.background, args.leave_out, args.seed)))


if __name__ == '__main__':
    cli.run(main)
