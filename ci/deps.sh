#!/usr/bin/env bash
# Finds what Lockstep is built with, installs what is missing, and writes down where HDF5 is:
#   ci/deps.sh build/deps.mk
#   ci/deps.sh install PACKAGE...     these Debian packages, for a script that has a use for more
# A library counts as present when the compiler finds it, so an environment module, CPATH and LIBRARY_PATH
# serve as well as a package. Missing ones are installed as Debian packages where this may be done without
# a password, unless LOCKSTEP_INSTALL=0; otherwise one message names them. Fails only if nothing can be built without them.
set -uo pipefail
out=$1
cxx=${CXX:-g++}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# compiles CODE [FLAG...]: does the compiler take it and link it?
compiles() {
    printf '%s\n' "$1" >"$scratch/probe.cpp"
    "$cxx" -std=c++20 "$scratch/probe.cpp" -o "$scratch/probe" "${@:2}" >/dev/null 2>&1
}
# library HEADER [FLAG...]: asks for the header only, since compiling some of them takes a second each
library() { compiles $'#if !__has_include(<'"$1"$'>)\n#error\n#endif\nint main() {}' "${@:2}"; }

# HDF5 is the one library whose place differs: a module's folder, pkg-config's answer, or Debian's folder.
hdf5_cflags='' hdf5_libs=''
hdf5() {
    local multiarch flags libs where
    multiarch=$("$cxx" -print-multiarch 2>/dev/null)
    local places=()
    for where in "${HDF5_DIR:-}" "${HDF5_ROOT:-}" "${HDF5_HOME:-}"; do
        [[ -n $where ]] && places+=("-I$where/include|-L$where/lib -Wl,-rpath,$where/lib -lhdf5")
    done
    places+=("$(pkg-config --cflags hdf5 2>/dev/null)|$(pkg-config --libs hdf5 2>/dev/null)"
             "|-lhdf5"
             "-I/usr/include/hdf5/serial|-L/usr/lib/$multiarch/hdf5/serial -lhdf5")
    for where in "${places[@]}"; do
        flags=${where%%|*} libs=${where#*|}
        # shellcheck disable=SC2086  # both are lists of flags
        if compiles $'#include <hdf5.h>\nint main() { return H5open(); }' $flags $libs; then
            hdf5_cflags=$flags hdf5_libs=$libs
            return 0
        fi
    done
    return 1
}

# toml++ is headers alone. Where no package has it (Ubuntu 22.04), PyPI does, within the source of one that wraps it.
toml_cflags=''
toml() {
    local flags
    for flags in '' "-isystem ${out%/*}/tomlplusplus"; do
        # shellcheck disable=SC2086  # a list of flags
        library toml++/toml.h $flags && toml_cflags=$flags && return 0
    done
    return 1
}
fetch_toml() {
    local url=https://files.pythonhosted.org/packages/10/fe/50ca1ac0c1a932d3e71311baff531c0395e546ec0cd42bc8a8a88c36e00b/pytomlpp-1.1.0.tar.gz
    local sum=61a0f73e7ba2fe8bba4e99ce6d2701491885850b53aad8f3e46d03c4b31e594d inside=third_party/tomlplusplus/include
    echo "deps: fetching toml++'s headers from PyPI" >&2
    python3 -c 'import sys, urllib.request as u; open(sys.argv[2], "wb").write(u.urlopen(sys.argv[1], timeout=20).read())' \
        "$url" "$scratch/toml.tgz" 2>/dev/null && sha256sum --quiet -c <<<"$sum  $scratch/toml.tgz" &&
        mkdir -p "${out%/*}/tomlplusplus" &&
        tar -xzf "$scratch/toml.tgz" -C "${out%/*}/tomlplusplus" --strip-components=4 "pytomlpp-1.1.0/$inside"
}

# MPI is optional. It takes no flags where CXX is an MPI's own compiler; else those that Open MPI's tells, or that of MPICH
# and its kin (Intel's). Its headers' warnings are not ours.
mpi_cflags='' mpi_libs=''
mpi() {
    local flags libs where
    # told OPEN_MPI'S MPICH'S WHICH: the flags that begin so, of what mpicc says when asked by either's option (a $, as
    # Intel's has in one, would be make's)
    told() { { mpicc "$1" || mpicc "$2"; } 2>/dev/null | tr ' ' '\n' | grep -E "^-($3)[^$]*$" | xargs; }
    for where in "|" "$(told --showme:compile -compile_info I)|$(told --showme:link -link_info 'L|l|Wl')" "|-lmpi"; do
        flags=${where%%|*} libs=${where#*|}
        flags="-DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX ${flags//-I/-isystem }"
        # shellcheck disable=SC2086  # both are lists of flags
        if compiles $'#include <mpi.h>\nint main() { return MPI_Finalize(); }' $flags $libs; then
            # Not nothing, which would say that there is no MPI.
            mpi_cflags=$flags mpi_libs=${libs:--pthread}
            return 0
        fi
    done
    return 1
}

# CUDA is optional: where its compiler is, and the GPUs it knows of those wanted (Ampere, Hopper, Blackwell).
nvcc='' cuda_archs=''
cuda() {
    local arch newest=''
    nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null) || return 0
    for arch in 80 90 100; do
        "$nvcc" --list-gpu-code 2>/dev/null | grep -qx "sm_$arch" || continue
        cuda_archs+=" -gencode=arch=compute_$arch,code=sm_$arch" newest=$arch
    done
    [[ -n $newest ]] && cuda_archs+=" -gencode=arch=compute_$newest,code=compute_$newest" || nvcc=''
}

# NCCL is optional too, and of use with CUDA only: beside the toolkit, in $NCCL_HOME, or where the compiler looks.
nccl_flags=''
nccl() {
    local where lib
    [[ -n $nvcc ]] || return 0
    for where in "${NCCL_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$nvcc")")")" /usr; do
        for lib in lib lib64; do
            [[ -f $where/include/nccl.h ]] || continue
            compiles $'extern "C" int ncclGetVersion(int*);\nint main() { int v; return ncclGetVersion(&v); }' \
                "-L$where/$lib" -lnccl || continue
            nccl_flags="-L$where/$lib -lnccl"
            [[ $where == /usr ]] || nccl_flags="-I$where/include $nccl_flags -Xlinker -rpath=$where/$lib"
            return 0
        done
    done
}

# What is needed: for what | its name elsewhere than in Debian | Debian packages | how to see that it is there.
needs=(
    'build|a C++20 compiler (g++ 11 or clang 16, or newer)|g++|library barrier'
    'build|HDF5|libhdf5-dev pkg-config|hdf5'
    'build|CLI11|libcli11-dev|library CLI/CLI.hpp'
    'build|nlohmann-json|nlohmann-json3-dev|library nlohmann/json.hpp'
    'build|toml++ (headers alone)|libtomlplusplus-dev|toml'
    'build|fmt|libfmt-dev|library fmt/format.h -lfmt'
    'build|xxHash|libxxhash-dev|library xxhash.h -lxxhash'
    'mpi|MPI (Open MPI, MPICH or its kin)|libopenmpi-dev openmpi-bin|mpi'
    'test|GoogleTest|libgtest-dev|library gtest/gtest.h -lgtest -lgtest_main'
    'bench|Google Benchmark|libbenchmark-dev|library benchmark/benchmark.h -lbenchmark'
    'report|Python with venv|python3-venv|python3 -c "import ensurepip, venv"'
    'ci|clang-format|clang-format|command -v clang-format'
)
missing_for='' missing_names='' packages=''
look() {
    missing_for='' missing_names='' packages=''
    local need purpose name package probe
    for need in "${needs[@]}"; do
        IFS='|' read -r purpose name package probe <<<"$need"
        eval "$probe" >/dev/null 2>&1 && continue
        missing_for+=" $purpose" missing_names+="${missing_names:+, }$name" packages+=" $package"
    done
}

may_install() { [[ ${LOCKSTEP_INSTALL:-1} != 0 ]]; }
install() {
    local as_root=()
    may_install || return 1
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=30)
    echo "deps: installing$packages" >&2
    # An old list of packages is not an error: the installation says whether it was good enough.
    "${as_root[@]}" apt-get "${options[@]}" update >"$scratch/log" 2>&1
    local package known=()
    for package in $packages; do
        apt-cache show "$package" >/dev/null 2>&1 && known+=("$package")
    done
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get "${options[@]}" install --no-install-recommends "${known[@]}" >>"$scratch/log" 2>&1 </dev/null; then
        tail -n 15 "$scratch/log" >&2
        return 1
    fi
}

if [[ $out == install ]]; then
    packages=" ${*:2}"
    install
    exit
fi
look
if [[ -n $packages ]]; then
    install && look
fi
if [[ $missing_names == *toml++* ]] && may_install; then
    fetch_toml && look
fi
if [[ -n $packages ]]; then
    can=$(may_install && echo "not installable here" || echo "not to be installed (LOCKSTEP_INSTALL=0)")
    echo "deps: missing and $can: $missing_names. On Debian: sudo apt-get install$packages." \
         "On a cluster: load the modules of that name, or set CPATH and LIBRARY_PATH to where they are." >&2
    if [[ $missing_for == *build* ]]; then
        rm -f "$out"
        exit 1
    fi
fi

cuda
nccl

# Make reads this file, and starts over once it is newer. While something is missing, every run looks again.
mkdir -p "$(dirname "$out")"
{
    echo "# Written by ci/deps.sh."
    echo "HDF5_CFLAGS := $hdf5_cflags"
    echo "TOML_CFLAGS := $toml_cflags"
    echo "HDF5_LIBS := $hdf5_libs"
    echo "MPI_CFLAGS := $mpi_cflags"
    echo "MPI_LIBS := $mpi_libs"
    echo "NVCC := $nvcc"
    echo "CUDA_ARCHS :=$cuda_archs"
    echo "NCCL_FLAGS := $nccl_flags"
    [[ -z $packages ]] || printf 'ifndef MAKE_RESTARTS\n%s: FORCE\nendif\n' "$out"
} >"$scratch/deps.mk"
cp "$scratch/deps.mk" "$out"
