"""Checks that print a line each. A program registers them, runs them all, and fails if one of them did."""

import os
import socket
import threading
import time
import traceback
import warnings

warnings.simplefilter('ignore')

CHECKS = []

# For what has to arrive. Nothing is waited for that does not come.
PATIENCE = int(os.environ.get('CHECK_PATIENCE', '60'))


def check(function):
    CHECKS.append(function)
    return function


def run(last=None):
    """Afterwards `last` is called; it has to make somebody end this program."""
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f'ok {function.__name__}', flush=True)
        except BaseException:
            failed += 1
            print(f'FAILED {function.__name__}\n{traceback.format_exc()}', flush=True)
    print(f'{len(CHECKS)} checks, {failed} failed', flush=True)
    if last and not failed:
        last()
        time.sleep(PATIENCE)
        os._exit(2)
    # Threads of servers and channels do not keep the program.
    os._exit(1 if failed else 0)


def equal(found, expected):
    assert found == expected, f'found {found!r}, expected {expected!r}'


def contains(text, part):
    assert part in text, f'{part!r} is not in {text!r}'


def raises(kind, function, *args, **kwargs):
    """The exception of this kind that the call has to end with."""
    try:
        result = function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f'no {kind.__name__}, but {result!r}')


def eventually(what, ask):
    """What `ask` answers as soon as it is something."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f'{what}: not within {PATIENCE} s'
        time.sleep(0.01)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


class Seen:
    """What arrived, and a way to wait for more."""

    def __init__(self):
        self.items = []
        self.changed = threading.Condition()

    def add(self, item):
        with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    def wait(self, count=1):
        with self.changed:
            arrived = self.changed.wait_for(lambda: len(self.items) >= count, PATIENCE)
            assert arrived, f'{count} wanted, {self.items!r} arrived'
            return list(self.items)
