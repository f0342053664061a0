#!/usr/bin/env bash
# Makes a Python environment with pinned packages. Running it again does nothing unless a pin changed.
#   ci/venv.sh report      build/venv: what the reports' plots and the HDF5 records need
#   ci/venv.sh data        build/venv-data: what datasets/tokenize.py needs
#   ci/venv.sh fixtures    build/venv-fixtures: the above and PyTorch, to make suites/fixtures anew
#                          (PyPI's wheel brings CUDA's libraries along: some 7 GB; nothing else needs it)
# Prints the path of its Python on success and the log of the installation on failure.
set -euo pipefail
cd "$(dirname "$0")/.."

report=(numpy==2.2.6 h5py==3.14.0 matplotlib==3.10.7 pandas==2.3.3)
data=(tokenizers==0.22.1 numpy==2.2.6 xxhash==3.6.0)
fixtures=("${report[@]}" xxhash==3.6.0 torch==2.9.1 transformers==4.57.1 safetensors==0.6.2 tokenizers==0.22.1)

set_name=${1:-report}
case $set_name in
    report) folder=build/venv; pins=("${report[@]}") ;;
    data) folder=build/venv-data; pins=("${data[@]}") ;;
    fixtures) folder=build/venv-fixtures; pins=("${fixtures[@]}") ;;
    *) echo "ci/venv.sh: no set '$set_name'; there are report, data and fixtures" >&2; exit 2 ;;
esac

mkdir -p build
exec 9>"$folder.lock"
flock 9  # two callers at once: the second waits, and finds it done
wanted=$(printf '%s\n' "${pins[@]}")
if [[ ! -x $folder/bin/python || $(cat "$folder/pins.txt" 2>/dev/null) != "$wanted" ]]; then
    log=$folder.log
    if ! { python3 -m venv --clear "$folder" &&
           "$folder/bin/pip" install --disable-pip-version-check "${pins[@]}"; } >"$log" 2>&1; then
        cat "$log" >&2
        echo "ci/venv.sh: could not install the set '$set_name' (log above); is PyPI reachable?" >&2
        exit 1
    fi
    printf '%s\n' "$wanted" >"$folder/pins.txt"  # last, so that an interrupted installation is redone
fi
echo "$folder/bin/python"
