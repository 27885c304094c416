"""Runs a command and watches its memory: a helper of the scripts beside it."""

import os
import subprocess
import tempfile
import time


class Usage:
    """What a command took: seconds, processor seconds, largest anonymous and largest resident memory in bytes."""

    def __init__(self, wall, cpu, anon, peak, code, out):
        self.wall, self.cpu, self.anon, self.peak, self.code, self.out = wall, cpu, anon, peak, code, out

    def __str__(self):
        return f"{self.wall:.1f} s, {self.cpu:.1f} s of processor time, {self.anon / 1e6:.0f} MB anonymous, {self.peak / 1e6:.0f} MB resident"


def status(pid):
    """RssAnon and VmHWM of a process in bytes, None when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            v = dict(line.split(":", 1) for line in f if ":" in line)
        return int(v["RssAnon"].split()[0]) * 1024, int(v["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ProcessLookupError):
        return None


def run(command, env=None):
    """Runs a command to its end, looking every 10 ms."""
    start = time.monotonic()
    anon = peak = 0
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        while True:
            s = status(p.pid)
            if s:
                anon, peak = max(anon, s[0]), max(peak, s[1])
            pid, code, usage = os.wait4(p.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.01)
        p.returncode = os.waitstatus_to_exitcode(code)
        out.seek(0)
        text = out.read().decode(errors="replace")
    return Usage(time.monotonic() - start, usage.ru_utime + usage.ru_stime, anon, peak, p.returncode, text)
