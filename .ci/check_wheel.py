"""Check a wheel: its top level is exactly our four packages, and its command answers from an empty folder.

The empty environment sees the light dependencies only (no torch), which is what help must get by with.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

LIGHT = ("typer", "rich", "pydantic", "pyyaml")


def main(wheel: Path) -> None:
    """Raise SystemExit with the reason if something is wrong."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if top != {"prm_kit", "labeling", "rl", "pipelines"}:
        raise SystemExit(f"top level of the wheel is {sorted(top)}")
    for wanted in ("prm_kit/py.typed", "pipelines/recipes/prm800k.yaml"):
        if wanted not in names:
            raise SystemExit(f"the wheel lacks {wanted}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        binaries = Path(folder) / "bin"
        constraints = Path(__file__).parents[1] / "constraints.txt"
        pip = [str(binaries / "pip"), "install", "--quiet", "--constraint", str(constraints)]
        subprocess.run([*pip, *LIGHT], check=True)  # noqa: S603
        subprocess.run([*pip, "--no-deps", str(wheel)], check=True)  # noqa: S603
        subprocess.run([str(binaries / "prm-kit"), "--help"], check=True, cwd="/", stdout=subprocess.DEVNULL)  # noqa: S603


if __name__ == "__main__":
    main(Path(sys.argv[1]))
