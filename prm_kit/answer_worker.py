"""The killable process in which math-verify runs. `answers.AnswerChecker` starts it as a plain file.

One JSON object per line in ({"id", "answer", "reference", "cpu_seconds"}) and out ({"id", "equal", "reason"}).
It imports nothing of prm_kit, lives under RLIMIT_AS and RLIMIT_CPU, writes no file, opens no socket and starts no
process (an audit hook refuses), and its parent kills it when it is late.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from typing import Any

_FORBIDDEN = (
    "socket.", "subprocess.", "ctypes.", "shutil.", "ftplib.", "http.", "smtplib.", "urllib.", "webbrowser.", "pty.",
    "os.exec", "os.fork", "os.spawn", "os.posix_spawn", "os.system", "os.kill", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.putenv", "os.unsetenv",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def refuse_side_effects(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: reading is allowed (late imports), everything that leaves a trace or the process is not."""
    if event.startswith(_FORBIDDEN):
        raise PermissionError(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        raise PermissionError("open for writing")


def short_of_memory(memory: int) -> bool:
    """Whether this process came near its limit of `memory` bytes: sympy turns a MemoryError into False."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            peaks = [int(line.split()[1]) << 10 for line in file if line.startswith("VmPeak:")]
    except OSError:
        return False
    return any(peak > 0.9 * memory for peak in peaks)


def compare(answer: str, reference: str) -> tuple[bool | None, str]:
    """Parse both as LaTeX and compare; (None, reason) where that cannot be done.

    Plain expressions are not extracted: that reads "9**9**9" as 9 and "2:30" as 2.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    kinds = [LatexExtractionConfig()]
    parsed = [
        parse(
            f"${text.replace('**', '^')}$",
            kinds,
            fallback_mode="no_fallback",
            parsing_timeout=None,
            raise_on_error=True,
        )
        for text in (reference, answer)
    ]
    if not all(parsed):
        return None, "unparsed"
    equal = any(
        verify(right, given, timeout_seconds=None, raise_on_error=True) for right in parsed[0] for given in parsed[1]
    )
    return equal, "symbolic" if equal else "different"


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever prints must not be taken for an answer
    memory = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.set_int_max_str_digits(4300)
    import math_verify  # noqa: F401

    logging.disable()
    sys.addaudithook(refuse_side_effects)
    _say(out, {"id": 0, "equal": None, "reason": "ready"})
    for line in sys.stdin:
        task = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime + task["cpu_seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            equal, reason = compare(task["answer"], task["reference"])
            if not equal and short_of_memory(memory):
                equal, reason = None, "crashed"
        except (MemoryError, RecursionError):
            equal, reason = None, "crashed"
        except Exception:  # whatever sympy stumbles over, the item has no verdict
            equal, reason = None, "unparsed"
        _say(out, {"id": task["id"], "equal": equal, "reason": reason})


def _say(out: Any, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
