#!/usr/bin/env bash
# Formats the C++ files in place, or with --check only says which are not formatted (exit status 1).
set -euo pipefail
cd "$(dirname "$0")/.."
version=14  # other versions break lines elsewhere
tool=$(command -v clang-format-$version || command -v clang-format || true)
if [[ -z $tool || $("$tool" --version) != *"version $version."* ]]; then
    echo "formatting needs clang-format $version; here is ${tool:+$("$tool" --version)}${tool:-none}"
    exit 77
fi
mapfile -t files < <(git ls-files -co --exclude-standard '*.cpp' '*.hpp' '*.cu' '*.cuh')
if [[ ${1:-} == --check ]]; then
    if ! "$tool" --dry-run -Werror --ferror-limit=3 "${files[@]}"; then
        echo "ci/format.sh mends this"
        exit 1
    fi
else
    "$tool" -i "${files[@]}"
fi
