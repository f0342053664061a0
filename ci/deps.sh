#!/usr/bin/env bash
# Finds what Lockstep is built with, installs what is missing, and writes down where HDF5 is:
#   ci/deps.sh build/deps.mk
#   ci/deps.sh install PACKAGE...     these Debian packages, for a script that has a use for more
# A library counts as present when the compiler finds it, so an environment module, CPATH and LIBRARY_PATH
# serve as well as a package. Missing ones are installed as Debian packages where this may be done without
# a password; otherwise those that are headers are fetched, and one message names the others. With LOCKSTEP_INSTALL=0
# nothing is installed or fetched. Fails only if nothing can be built without what is missing.
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

# HDF5 is the one library whose place differs: a module's folder, pkg-config's answer, where its h5cc lies, or Debian's
# folder. One that is built with MPI includes its header.
hdf5_cflags='' hdf5_libs=''
hdf5() {
    local multiarch flags libs where with
    multiarch=$("$cxx" -print-multiarch 2>/dev/null)
    local places=()
    # at FOLDER OPTION: its headers by this option, its library wherever it is there
    at() {
        [[ -z $1 ]] || for libs in lib lib64; do
            places+=("$2 $1/include|-L$1/$libs -Wl,-rpath,$1/$libs -lhdf5")
        done
    }
    for where in "${HDF5_DIR:-}" "${HDF5_ROOT:-}" "${HDF5_HOME:-}" "${EBROOTHDF5:-}"; do at "$where" -I; done
    places+=("$(pkg-config --cflags hdf5 2>/dev/null)|$(pkg-config --libs hdf5 2>/dev/null)" "|-lhdf5")
    # Such a folder may hold much else (Anaconda's does): nothing of it that the compiler has itself.
    for where in h5cc h5pcc; do at "$(prefix_of $where)" -idirafter; done
    places+=("-I/usr/include/hdf5/serial|-L/usr/lib/$multiarch/hdf5/serial -lhdf5")
    for where in "${places[@]}"; do
        for with in '' mpi; do
            [[ -z $with || -n $mpi_cflags ]] || mpi || break
            flags="${where%%|*} ${with:+$mpi_cflags}" libs=${where#*|}
            # shellcheck disable=SC2086  # both are lists of flags
            if compiles $'#include <hdf5.h>\nint main() { return H5open(); }' $flags $libs; then
                hdf5_cflags=${flags% } hdf5_libs=$libs
                return 0
            fi
        done
    done
    return 1
}
prefix_of() { dirname "$(dirname "$(command -v "$1")")" 2>/dev/null | grep -vx -e . -e /usr; }

# What is headers alone, or can be, takes neither a package nor root: where the compiler has none, Debian's package of it is
# unpacked beside $out. Where it lies in Debian's archive (Debian 12's), and its SHA-256; GoogleTest's holds its source.
declare -A archive=(
    [CLI11]='c/cli11/libcli11-dev_2.1.2+ds-1_all.deb f1f6ee9ec053e0e0bcec47345e241b6a8ee006321248b4329e9ce88d2b4b64a8'
    [nlohmann-json]='n/nlohmann-json3/nlohmann-json3-dev_3.11.2-2_all.deb ec57940def6b6186c30be0e0ee81d1e58f86d11a54a145b28686a1e3e4aae801'
    [toml++]='t/tomlplusplus/libtomlplusplus-dev_3.3.0+ds-1_amd64.deb 2779cce0001466dcf60eb6262ff68a888d49f9e30aee80c499d1d4f6f9f6e12e'
    [fmt]='f/fmtlib/libfmt-dev_9.1.0+ds1-2_amd64.deb c8fa00dd0269e6eda9fd06668df3d720de4b5a1f647dcd3c6e0ba63f0cbf2150'
    [xxHash]='x/xxhash/libxxhash-dev_0.8.1-1_amd64.deb 47e8309c6163f5ffa910520f6502cc264fda93dbb58ada840db4838575a86151'
    [GoogleTest]='g/googletest/googletest_1.12.1-0.2_all.deb 927be72067517da503b6538026d451455c9e860f5dbfe237f792543db7d5a928'
)
fetched=${out%/*}/fetched
download() {  # URL FILE
    if command -v curl; then
        curl -fsSL --connect-timeout 10 -o "$2" "$1"
    elif command -v wget; then
        wget -q -T 10 -t 1 -O "$2" "$1"
    else
        python3 -c 'import sys, urllib.request as u; open(sys.argv[2], "wb").write(u.urlopen(sys.argv[1], timeout=10).read())' "$@"
    fi
} >/dev/null 2>&1
fetch() {  # NAME
    local place sum host
    read -r place sum <<<"${archive[$1]}"
    for host in https://deb http://deb https://archive; do  # a sum says what has come, whatever the certificates
        download "$host.debian.org/debian/pool/main/$place" "$scratch/package.deb" &&
            sha256sum --quiet -c <<<"$sum  $scratch/package.deb" >/dev/null 2>&1 &&
            (cd "$scratch" && ar x package.deb data.tar.xz && tar -xJf data.tar.xz) && break
    done || return 1
    mkdir -p "$fetched"
    if [[ $1 == GoogleTest ]]; then
        cp -r "$scratch/usr/src/googletest/googletest" "$fetched"
    else
        cp -r "$scratch/usr/include" "$fetched"
    fi
    rm -rf "${scratch:?}/usr"
}

header_cflags='' header_libs='' gtest_source=''
# headers HEADER [LIBRARY FLAG]: the compiler's own, with their library, or those fetched, which with FLAG need none
headers() {
    # shellcheck disable=SC2086  # none or one
    library "$1" ${2:-} && header_libs+=${2:+ $2} && return
    [[ -f $fetched/include/$1 ]] || return
    [[ $header_cflags == *"$fetched/include"* ]] || header_cflags+=" -isystem $fetched/include"
    header_cflags+=${3:+ $3}
}
googletest() {
    library gtest/gtest.h -lgtest -lgtest_main && return
    [[ -f $fetched/googletest/src/gtest-all.cc ]] || return
    gtest_source=$fetched/googletest header_cflags+=" -isystem $fetched/googletest/include"
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

# What is needed: for what, if not for all | its name elsewhere than in Debian | Debian packages | how to see that it is there.
needs=(
    '|a C++20 compiler (g++ 11 or clang 16, or newer)|g++|library barrier'
    '|HDF5|libhdf5-dev pkg-config|hdf5'
    '|CLI11|libcli11-dev|headers CLI/CLI.hpp'
    '|nlohmann-json|nlohmann-json3-dev|headers nlohmann/json.hpp'
    '|toml++|libtomlplusplus-dev|headers toml++/toml.h'
    '|fmt|libfmt-dev|headers fmt/format.h -lfmt -DFMT_HEADER_ONLY'
    '|xxHash|libxxhash-dev|headers xxhash.h -lxxhash "-DXXH_INLINE_ALL -DXXH_NO_INLINE_HINTS=1"'
    '--comm mpi|MPI|libopenmpi-dev openmpi-bin|mpi'
    'make test|GoogleTest|libgtest-dev|googletest'
    'make bench|Google Benchmark|libbenchmark-dev|library benchmark/benchmark.h -lbenchmark'
    'the page|Python with venv|python3-venv|python3 -c "import ensurepip, venv"'
    'make format|clang-format|clang-format|command -v clang-format'
)
missing=() said='' packages='' stops=''
look() {
    missing=() said='' packages='' stops='' mpi_cflags='' header_cflags='' header_libs='' gtest_source=''
    local need purpose name package probe
    for need in "${needs[@]}"; do
        IFS='|' read -r purpose name package probe <<<"$need"
        eval "$probe" >/dev/null 2>&1 && continue
        missing+=("$name") said+="${said:+, }$name${purpose:+ (for $purpose)}" packages+=" $package"
        [[ -n $purpose ]] || stops=yes
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
if [[ -n $packages ]] && may_install; then
    names=()
    for name in "${missing[@]}"; do [[ -z ${archive[$name]:-} ]] || names+=("$name"); done
    [[ ${#names[@]} == 0 ]] || echo "deps: fetching headers from Debian's archive, which takes no root: ${names[*]}" >&2
    for name in "${names[@]}"; do fetch "$name" || break; done
    [[ ${#names[@]} == 0 ]] || look
fi
if [[ -n $packages ]]; then
    can=$(may_install && echo "not installable here" || echo "not to be installed (LOCKSTEP_INSTALL=0)")
    echo "deps: missing and $can: $said. On Debian: sudo apt-get install$packages." \
         "On a cluster: load the modules of that name, or set CPATH and LIBRARY_PATH to where they are." >&2
    if [[ -n $stops ]]; then
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
    echo "HEADER_CFLAGS :=$header_cflags"
    echo "HEADER_LIBS :=$header_libs"
    [[ -z $gtest_source ]] || echo "GTEST_SOURCE := $gtest_source"
    echo "HDF5_LIBS := $hdf5_libs"
    echo "MPI_CFLAGS := $mpi_cflags"
    echo "MPI_LIBS := $mpi_libs"
    echo "NVCC := $nvcc"
    echo "CUDA_ARCHS :=$cuda_archs"
    echo "NCCL_FLAGS := $nccl_flags"
    [[ -z $packages ]] || printf 'ifndef MAKE_RESTARTS\n%s: FORCE\nendif\n' "$out"
} >"$scratch/deps.mk"
cp "$scratch/deps.mk" "$out"
