"""A page that segments in the browser: python tools/web_demo.py MODEL.onnx --out site [--serve]"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg.web.site import server, write_site

    parser = cli.Parser(description=__doc__)
    parser.add_argument('artifact', help='an .onnx file that tools/export.py wrote')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the page')
    parser.add_argument(
        '--runtime',
        metavar='TGZ',
        help="onnxruntime-web's archive from `npm pack`, where npm cannot reach its registry",
    )
    cli.add_unknown_option(parser)
    parser.add_argument('--serve', action='store_true', help='show it on this machine until Ctrl-C')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='to serve on; 0.0.0.0 lets phones in, whose browsers open the camera over https only '
        '(default: %(default)s)',
    )
    parser.add_argument('--port', type=int, default=8000, help='to serve on (default: %(default)s)')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    if not args.serve:
        parser.refuse_others(args, 'without --serve it', 'artifact out runtime unknown_below')
    folder = write_site(args.artifact, args.out, args.runtime, args.unknown_below)
    print(f'page: {folder} (a static folder; any web server can serve it)')
    if args.serve:
        with server(folder, args.host, args.port) as running:
            print(f'open http://{args.host}:{running.server_port}', flush=True)
            running.serve_forever()


if __name__ == '__main__':
    cli.run(main, needs_stack=False)
