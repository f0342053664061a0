#!/usr/bin/env bash
# Runs a suite, makes its page, and ends in the program's verdict:  ci/sweep.sh BUILD_FOLDER SUITE [OPTIONS of `lockstep sweep`]
# It starts anew, or with RESUME=1 goes on. The exit status is the program's; a page that cannot be made takes
# one line and changes no verdict.
set -uo pipefail
cd "$(dirname "$0")/.."
B=$1 suite=$2
out=$B/sweep
mkdir -p "$out"
verdict=$out/verdict.txt
rm -f "$verdict"
options=(--fresh)
[[ -z ${RESUME:-} ]] || options=()
options+=("${@:3}")

# The verdict is held back so that it stands last.
"$B/lockstep" sweep "$suite" --out "$out" --verdict "$verdict" "${options[@]}" </dev/null
status=$?
if [[ ! -s $verdict ]]; then
    echo "lockstep sweep ended without a verdict (exit status $status)" >&2
    exit $((status ? status : 1))
fi

if ! python=$(ci/venv.sh report 2>"$out/page.log"); then
    echo "no page: the Python packages for it could not be installed ($out/page.log says why)"
elif ! "$python" reports/page.py "$out" >"$out/page.log" 2>&1; then
    echo "no page: reports/page.py failed ($out/page.log says why)"
else
    echo "page: $out/index.html"
fi
tail -n 1 "$verdict"
exit "$status"
