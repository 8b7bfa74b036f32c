#!/usr/bin/env bash
# The tests against a real Label Studio, and one in a real browser. Everything is kept between runs in $STUDIO_HOME.
#   PYTHON       a Python with venv; default python3
#   STUDIO_HOME  where the environments and the empty database go; default .venv-studio beside this project's own
#   CHROMIUM, CHROMEDRIVER  the browser, if it is not to be Debian's
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
home=$(mkdir -p "${STUDIO_HOME:-.venv-studio}" && cd "${STUDIO_HOME:-.venv-studio}" && pwd)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' labeling/label_studio/installation.py)
export XDG_DATA_HOME="$home/data"

echo "== browser"
if ! command -v "${CHROMIUM:-chromium}" > /dev/null || ! command -v "${CHROMEDRIVER:-chromedriver}" > /dev/null; then
    apt-get update --quiet --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --no-install-recommends --yes \
        chromium chromium-driver > /dev/null
fi

echo "== Label Studio $version"
server="$home/data/prm-kit/label-studio-$version"
if ! "$server/bin/label-studio" --help > /dev/null 2>&1; then
    rm -rf "$server"
    "$python" -m venv "$server"
    "$server/bin/pip" install --quiet "label-studio==$version"
fi

echo "== its client"
client="$home/client"
if ! "$client/bin/python" -c "import label_studio_sdk, selenium, latex2mathml, polars, tokenizers, pytest_timeout" 2> /dev/null; then
    rm -rf "$client"
    "$python" -m venv "$client"
    # Not the pinned set: label-studio-sdk holds numpy back. Not torch: labels need none.
    "$client/bin/pip" install --quiet label-studio-sdk==2.1.2 selenium==4.51.0 "latex2mathml>=3.77" \
        "polars>=1.30" "pyarrow>=18" "pydantic>=2.10" "pyyaml>=6.0" "typer>=0.15" "rich>=13" \
        "tokenizers>=0.21" "pytest>=8.3" "pytest-timeout>=2.3" "hypothesis>=6.120"
fi

echo "== tests"  # without the conftest of all tests, which wants torch
"$client/bin/python" -m pytest -m label_studio --confcutdir tests/labeling/label_studio tests/labeling/label_studio "$@"
