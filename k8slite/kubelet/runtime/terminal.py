"""Run as `python -I -S terminal.py COMMAND...` in a session of its own: take the terminal that is
standard input as the session's own, let signals do what they usually do, then become the command.
Standard library alone.
"""

import fcntl
import os
import signal
import sys
import termios


def main() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)  # a kubelet in the background ignores some
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f'exec: "{sys.argv[1]}": {error.strerror}\n')
    sys.exit(126)


if __name__ == "__main__":
    main()
