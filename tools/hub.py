"""A trained model for the Hugging Face Hub: python tools/hub.py save CONFIG CHECKPOINT FOLDER, then push FOLDER
OWNER/NAME"""

from effseg.apis import cli


def main(argv: list[str]) -> None:
    from effseg import hub
    from effseg.checkpoint.read import trusted

    parser = cli.Parser(description=__doc__)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    commands = parser.add_subparsers(dest='command', required=True)
    save = commands.add_parser('save', help='write config, weights and card, with the score on the test data')
    save.add_argument('config', help="config file, or 'effseg::NAME.py' for a shipped one")
    save.add_argument('checkpoint', help='trained weights')
    save.add_argument('folder', help='where to')
    save.add_argument(
        '--license',
        default='unknown',
        metavar='NAME',
        help="for the card, by the hub's name, such as 'apache-2.0' (default: %(default)s)",
    )
    cli.add_trust_option(save)
    cli.add_cfg_options(save)
    push = commands.add_parser('push', help="upload that folder, as the user of 'hf auth login'")
    push.add_argument('folder', help='that save wrote')
    push.add_argument('repository', metavar='OWNER/NAME')
    push.add_argument('--private', action='store_true', help='if the repository is new')
    args = parser.parse_args(argv)
    if args.command == 'save':
        with trusted(args.trust_checkpoint):
            folder = hub.save(
                args.config, args.checkpoint, args.folder, cfg_options=args.cfg_options, license=args.license
            )
        print(f'saved: {folder}')
    else:
        print(f'pushed: {hub.push(args.folder, args.repository, args.private)}')


if __name__ == '__main__':
    cli.run(main)
