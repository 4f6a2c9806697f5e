"""The parent of one started program, run by `process` as a program of its own: it ends the program
and whatever that has started as soon as nobody holds the other end of its standard input.

    python -I -S keeper.py DESCRIPTOR,… PROGRAM [ARGUMENT…]

Standard input is a socket. Its other end is told `started`, or `failed N` (an errno), and then how
the program ended, `ended N`, negative for a signal. Nothing of cpumap is imported here: it starts
for every QEMU.
"""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)

_LIFELINE = 0


def main(passed: list[int], command: list[str]) -> None:
    """Runs the program, with the descriptors passed, until it ends or the lifeline does."""
    # Orphans of the program, those that left its session too, become children of this process.
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    program = _started(command, prctl)
    for number in passed:  # they are the program's: nobody learns of its end while one is open
        with suppress(OSError):
            os.close(number)
    if program:
        _tell("started")
        _wait(program, woken)
        _end_all()


def _started(command: list[str], prctl: Callable[[int, int], int]) -> int:
    """The program's process; 0 where it cannot be started, which is told."""
    failed, report = os.pipe()
    program = os.fork()
    if program == 0:
        _become(command, prctl, report)
    os.close(report)
    number = os.read(failed, 16)
    os.close(failed)
    if number:
        os.waitpid(program, 0)
        _tell(f"failed {number.decode()}")
        return 0
    return program


def _become(command: list[str], prctl: Callable[[int, int], int], report: int) -> None:
    """The program instead of this process. This process has one thread, which lasts as long as
    itself: so the kernel may end the program when that does.
    """
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
            signal.signal(ignored, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, _LIFELINE)
        os.execvp(command[0], command)
    except OSError as err:
        os.write(report, str(err.errno).encode())
    finally:
        os._exit(127)


def _wait(program: int, woken: int) -> None:
    """Returns when the program has ended, which is told, or the lifeline has."""
    while True:
        ready, _, _ = select.select([_LIFELINE, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for process, status in _reaped(os.WNOHANG):
                if process == program:
                    _tell(f"ended {os.waitstatus_to_exitcode(status)}")
                    return
        if _LIFELINE in ready:
            return


def _end_all() -> None:
    """Kills every descendant: what a killed child leaves behind becomes a child of this process."""
    with suppress(ChildProcessError):  # none is left
        while True:
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                for child in _children():
                    with suppress(OSError):
                        os.kill(child, signal.SIGKILL)
                os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    for number in _numbers("/proc"):
        with suppress(OSError):  # it may have ended
            stat = os.open(f"/proc/{number}/stat", os.O_RDONLY)
            # The name, in parentheses, may hold anything; then come state and parent.
            fields = os.read(stat, 4096).rpartition(b")")[2].split()
            os.close(stat)
            if int(fields[1]) == os.getpid():
                yield number


def _numbers(directory: str) -> list[int]:
    """The entries that are numbers: of /proc, processes."""
    with os.scandir(directory) as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def _reaped(options: int) -> Iterator[tuple[int, int]]:
    while True:
        try:
            process, status = os.waitpid(-1, options)
        except ChildProcessError:
            return
        if process == 0:
            return
        yield process, status


def _tell(words: str) -> None:
    with suppress(OSError):  # nobody may be there any more
        os.write(_LIFELINE, f"{words}\n".encode())


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1].split(",") if number], sys.argv[2:])
