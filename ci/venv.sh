#!/usr/bin/env bash
# Makes a Python environment with pinned packages. Running it again does nothing unless a pin changed.
#   ci/venv.sh report      build/venv: what the reports' plots and the HDF5 records need
#   ci/venv.sh data        build/venv-data: what datasets/make_tokens.py needs
#   ci/venv.sh fixtures    build/venv-fixtures: the above and PyTorch, to make suites/fixtures anew
#                          (PyPI's wheel brings CUDA's libraries along: some 7 GB; nothing else needs it)
#   ci/venv.sh exports     build/venv-exports: the trainers that `lockstep plan --export` writes for, whose parsers
#                          the tests then ask (6 GB, minutes; Megatron-LM wants Python 3.12)
# Prints the path of its Python on success and the log of the installation on failure.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where one version has wheels for old Pythons alone, a later one for new ones.
old='python_version < "3.10"' usual='python_version >= "3.10" and python_version < "3.14"' new='python_version >= "3.14"'
numpy=("numpy==2.0.2; $old" "numpy==2.2.6; $usual" "numpy==2.3.5; $new")
report=("${numpy[@]}" "h5py==3.14.0; python_version < '3.14'" "h5py==3.15.1; $new"
        "matplotlib==3.9.4; $old" "matplotlib==3.10.7; python_version >= '3.10'" pandas==2.3.3)
data=("${numpy[@]}" tokenizers==0.22.1 xxhash==3.6.0)
fixtures=("${report[@]}" xxhash==3.6.0 torch==2.9.1 transformers==4.57.1 safetensors==0.6.2 tokenizers==0.22.1)
exports=(torch==2.15.0 numpy==2.5.5 transformers==5.24.0 accelerate==1.15.0 deepspeed==0.19.8
         megatron-core==0.19.2 torchtitan==0.3.0)

set_name=${1:-report} least=3.9
case $set_name in
    report) folder=build/venv; pins=("${report[@]}") ;;
    data) folder=build/venv-data; pins=("${data[@]}") ;;
    fixtures) folder=build/venv-fixtures; pins=("${fixtures[@]}") ;;
    exports) folder=build/venv-exports; pins=("${exports[@]}"); least=3.12; export DS_BUILD_OPS=0 ;;
    *) echo "ci/venv.sh: no set '$set_name'; there are report, data, fixtures and exports" >&2; exit 2 ;;
esac

# The first Python that is new enough: the usual one, or others that lie about.
for python in python3 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3 none; do
    ! "$python" -c "import sys; sys.exit(sys.version_info < (${least/./, }))" 2>/dev/null || break
done
[[ $python != none ]] || { echo "ci/venv.sh: the set '$set_name' needs Python $least or later" >&2; exit 1; }

mkdir -p build
exec 9>"$folder.lock"
flock 9  # two callers at once: the second waits, and finds it done
wanted=$(printf '%s\n' "${pins[@]}")
if [[ ! -x $folder/bin/python || $(cat "$folder/pins.txt" 2>/dev/null) != "$wanted" ]]; then
    log=$folder.log
    trap '[[ -f $folder/pins.txt ]] || rm -rf "$folder"' EXIT  # half an environment would pass for a whole one
    if ! { "$python" -m venv --clear "$folder" &&
           "$folder/bin/pip" install --disable-pip-version-check "${pins[@]}"; } >"$log" 2>&1; then
        cat "$log" >&2
        echo "ci/venv.sh: could not install the set '$set_name' (log above); is PyPI reachable?" >&2
        exit 1
    fi
    printf '%s\n' "$wanted" >"$folder/pins.txt"  # last, so that an interrupted installation is redone
fi
echo "$folder/bin/python"
