"""Segment images, videos or a camera: python tools/predict.py CONFIG CHECKPOINT_OR_ARTIFACT
IMAGE_FOLDER_VIDEO_OR_CAMERA... --out-dir OUT"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.apis.predict import predict
    from effseg.checkpoint.read import trusted

    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    parser.add_argument('checkpoint', help='trained weights, or an exported artifact')
    parser.add_argument('images', nargs='+', help='image files, video files, folders, numbers of cameras')
    parser.add_argument('--out-dir', required=True, help='folder for overlays, label maps and shares.json')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colors over the image')
    parser.add_argument('--fused', action='store_true', help='fuse the network first: the same labels in less time')
    cli.add_precision_option(parser)
    cli.add_unknown_option(parser)
    parser.add_argument('--frames', type=int, metavar='N', help='at most N frames of a video or camera')
    parser.add_argument('--frame-labels', action='store_true', help='also a label map for every frame of a video')
    parser.add_argument(
        '--show', action='store_true', help='show videos and cameras in a window while they are labelled'
    )
    parser.add_argument('--device', help="such as 'cpu' or 'cuda:0' (default: the GPU if there is one)")
    cli.add_trust_option(parser)
    cli.add_cfg_options(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    with trusted(args.trust_checkpoint):
        done = predict(
            args.config,
            args.checkpoint,
            args.images,
            args.out_dir,
            args.opacity,
            args.cfg_options,
            args.device,
            args.fused,
            args.frames,
            args.frame_labels,
            args.show,
            args.precision,
            args.unknown_below,
        )
    print(
        f'{done.images} images in {done.seconds:.1f} s ({done.images / done.seconds:.1f} images/s); overlays, label '
        f'maps and {done.shares.name} in {args.out_dir}'
    )


if __name__ == '__main__':
    cli.run(main)
