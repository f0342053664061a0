#!/usr/bin/env bash
# Packs Open MPI's programs and libraries for a machine that has none and no network, from Debian's packages:
#   ci/pack_mpi.sh build/gpu/mpi
# What is packed runs from any folder with the environment that ci/gpu_check.sh sets. Says why if it cannot.
set -uo pipefail
to=$1
packages=(openmpi-bin openmpi-common libopenmpi3 libpmix2 libhwloc15 libevent-core-2.1-7 libevent-pthreads-2.1-7
          libmunge2 libnl-3-200 libnl-route-3-200 libudev1 zlib1g)
leave_out() { rm -rf "$to" && echo "  packed without Open MPI, so gpu-check leaves --comm nccl out: $1"; exit 0; }
grep -q 'libmpi\.so\.40' "${to%/*}/lockstep_mpi.so" 2>/dev/null || leave_out "lockstep_mpi.so was not built with Open MPI"
[[ ! -x $to/usr/bin/mpirun ]] || exit 0
command -v apt-get dpkg >/dev/null || leave_out "this is no Debian"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
(cd "$scratch" && apt-get -q -o APT::Sandbox::User=root download "${packages[@]}") >"$scratch/log" 2>&1 ||
    leave_out "apt-get download: $(grep -m1 '^E:' "$scratch/log")"
rm -rf "$to" && mkdir -p "$to"
for package in "$scratch"/*.deb; do dpkg -x "$package" "$to" || leave_out "$package cannot be unpacked"; done
# Networks of clusters, whose libraries are not here; and what nobody reads there.
rm -f "$to"/usr/lib/*/openmpi/lib/openmpi3/mca_{mtl_{ofi,psm,psm2},btl_{ofi,openib}}.so \
    "$to"/usr/lib/*/openmpi/lib/openmpi3/mca_{pml,osc,spml,sshmem,atomic}_ucx.so
rm -rf "$to"/usr/share/{doc,man,lintian,bug} "$to"/usr/lib/*/lib{mpi_,oshmem,ompitrace,mca_common_{ofi,ucx,verbs}}*
find "$to/usr/bin" ! -type d ! -name 'ort*' -delete
ln -sf orterun "$to/usr/bin/mpirun"
