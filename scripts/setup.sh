#!/bin/sh
# Make .venv hold exactly what uv.lock says. Needs Python 3.11 or newer; uv is taken from PATH, else put into .uv.
set -eu
cd "$(dirname "$0")/.."

python=""
for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$("$name" -c 'import sys; print(sys.executable)')  # not a shim
        break
    fi
done
if [ -z "$python" ]; then
    echo "customer360 needs Python 3.11 or newer, and none was found on PATH." >&2
    exit 1
fi

export UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv
if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    # In a folder of its own: a sync may make .venv anew.
    [ -x .uv/bin/uv ] || { "$python" -m venv .uv && .uv/bin/python -m pip install -q --disable-pip-version-check uv; }
    uv=.uv/bin/uv
fi
"$uv" sync -q --locked --python "$python"
