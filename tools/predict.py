"""Segment pictures: python tools/predict.py configs/fpn_effformer_l1_demo.py CHECKPOINT IMAGE_OR_FOLDER... --out-dir OUT"""
from effseg.engine import cli


def main(argv: list[str]) -> None:
    from effseg.engine.predict import predict
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument('images', nargs='+', help='image files and folders')
    parser.add_argument('--out-dir', required=True, help='folder for overlays and label maps')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours over the picture')
    parser.add_argument('--device', help="such as 'cpu' or 'cuda:0' (default: the GPU if there is one)")
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    overlays = predict(args.config, args.checkpoint, args.images, args.out_dir, args.opacity, args.cfg_options, args.device)
    print(f'{len(overlays)} overlays and label maps in {args.out_dir}')


if __name__ == '__main__':
    cli.run(main)
