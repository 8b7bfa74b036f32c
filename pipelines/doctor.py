"""`prm-kit doctor`: what is missing on this machine, and how to mend it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.output import Json, Output

Status = Literal["PASS", "WARN", "FAIL"]


class Finding(NamedTuple):
    """One line of the doctor: status, what was looked at, what was found, how to mend it ("" if nothing to do)."""

    status: Status
    check: str
    found: str
    mend: str = ""


def command(as_json: Json = False) -> None:
    """Check python, packages, extras, device, disk and a tiny end-to-end run; exit 1 if something must be mended."""
    findings = [finding for check in CHECKS for finding in check()]
    failed = any(finding.status == "FAIL" for finding in findings)
    if as_json:
        sys.stdout.write(json.dumps({"ok": not failed, "findings": [f._asdict() for f in findings]}, indent=2) + "\n")
    else:
        output = Output()
        for finding in findings:
            mend = f" -> {finding.mend}" if finding.mend else ""
            output.say(f"{finding.status}  {finding.check}: {finding.found}{mend}")
    raise SystemExit(int(failed))


def check_python() -> list[Finding]:
    """The interpreter's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return [Finding("PASS", "python", found)]
    return [Finding("FAIL", "python", found, "use Python 3.11, 3.12 or 3.13")]


def check_packages() -> list[Finding]:
    """Required packages and their declared ranges; optional ones by extra."""
    from packaging.requirements import Requirement

    findings = []
    for text in metadata.requires("prm-kit") or []:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if extra == "dev" or requirement.name == "prm-kit":
            continue
        mend = (
            f"pip install 'prm-kit[{extra}]'" if extra else f"pip install '{requirement.name}{requirement.specifier}'"
        )
        name = f"{requirement.name} (extra {extra})" if extra else requirement.name
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(Finding("WARN" if extra else "FAIL", name, "not installed", mend))
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        wanted = f"{version}, wanted {requirement.specifier}"
        findings.append(Finding("PASS", name, version) if fits else Finding("FAIL", name, wanted, mend))
    return findings


def check_device() -> list[Finding]:
    """CPU cores and CUDA devices."""
    findings = [Finding("PASS", "cpu", f"{os.cpu_count()} cores")]
    if util.find_spec("torch") is None:
        return findings
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return [*findings, Finding("PASS", "cuda", names)]
    return [*findings, Finding("WARN", "cuda", "no device", "fine for the quickstart; real backbones want a GPU")]


def check_disk() -> list[Finding]:
    """Free space and write access where we work."""
    findings = []
    for check, folder in (("working folder", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free / 2**30
        if not os.access(folder, os.W_OK):
            findings.append(Finding("FAIL", check, f"{folder} cannot be written", "choose another --out"))
        elif free < 2:
            findings.append(Finding("WARN", check, f"{free:.1f} GiB free", "checkpoints may not fit"))
        else:
            findings.append(Finding("PASS", check, f"{free:.0f} GiB free"))
    return findings


def check_answers() -> list[Finding]:
    """The answer checker's worker starts, answers and is bounded."""
    from prm_kit.answers import AnswerChecker

    with AnswerChecker() as checker:
        verdict = checker.equal(r"\frac{2}{4}", "0.5")
    if verdict.equal:
        return [Finding("PASS", "answer checker", verdict.reason)]
    return [Finding("FAIL", "answer checker", f"2/4 against 0.5: {verdict.reason}", "reinstall math-verify")]


def _extra_of(requirement: object) -> str:
    marker = str(getattr(requirement, "marker", None) or "")
    return marker.partition('extra == "')[2].partition('"')[0]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_device,
    check_disk,
    check_answers,
)
