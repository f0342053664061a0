#!/usr/bin/env python3
"""Fetches Jane Austen's six novels (4.0 MB of plain English, public domain), one text file each.

    datasets/fetch.py [folder, default build/datasets/austen]

They come from Debian's package r-cran-janeaustenr, with `apt-get download`: nothing is installed, root is
not needed. Where no package can be had, the committed excerpt is put there instead, and said so. README.md
states the origin and the licence.
"""

import hashlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "r-cran-janeaustenr"
SHA256 = {  # of the text files written here, whatever build of the package they came from
    "emma.txt": "7c67b5985c6d0de1efaeb5d342d52cb82c38083c40e2295129e30e87ee690ebe",
    "mansfield_park.txt": "98bc90519cdf4ef663ad7de2734bb529435ef24f7abbde6bb1a50898871dafe9",
    "northanger_abbey.txt": "6f53a33627d6e48c9658313b23f8d39c04b918fd0330b31b0c202a2d04d6e9c1",
    "persuasion.txt": "8061549557aebd2fd6e353d18d9197cb707029112bd52d4d8b174583a925848a",
    "pride_and_prejudice.txt": "dfc684d4f857fa938268f9ab9c5567b64bd0691251eca959644adeabe6287a4d",
    "sense_and_sensibility.txt": "105e1651fe93bed7130078578efd31e0c557d68667ba672ddc876f735b30fe09",
}


def download(folder):
    """The package's data file, fetched into `folder`; None with a reason on stderr if it cannot be had."""
    try:
        fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
        if fetched.returncode and os.geteuid() == 0:  # a fresh machine has no package lists yet
            subprocess.run(["apt-get", "update"], capture_output=True)
            fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
        if fetched.returncode:
            print(fetched.stderr.strip(), file=sys.stderr)
            return None
        package = next(pathlib.Path(folder).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    except FileNotFoundError as missing:
        print(f"{missing.filename} is missing: this is not Debian", file=sys.stderr)
        return None
    return next(pathlib.Path(folder).glob("usr/lib/R/site-library/*/data/Rdata.rdb"))


def unpack(data):
    """The lines of each novel. `data` is a row of zlib streams, each behind its unpacked length (u32), and
    each an R vector of strings in R's serialized form, version 3, big-endian ("R Internals", 1.8)."""
    while data:
        stream = zlib.decompressobj()
        item = stream.decompress(data[4:])
        data = stream.unused_data
        at = 0

        def u32():
            nonlocal at
            at += 4
            return struct.unpack_from(">I", item, at - 4)[0]

        def text():
            nonlocal at
            length = u32()
            at += length
            return item[at - length : at].decode("utf-8")

        assert item[:2] == b"X\n", "not serialized by R"
        at = 2 + 3 * 4  # format, three versions
        text()  # its encoding
        assert u32() & 0xFF == 16, "not a vector of strings"
        lines = []
        for _ in range(u32()):
            u32()  # flags of one string
            lines.append(text())
        yield lines


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/datasets/austen")
    target.mkdir(parents=True, exist_ok=True)
    if all((target / name).is_file() and hashlib.sha256((target / name).read_bytes()).hexdigest() == digest
           for name, digest in SHA256.items()):
        print(f"{target}: the six novels are there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # apt downloads as a user of its own
        data = download(folder)
        if data is None:
            shutil.copy(HERE / "excerpt.txt", target / "excerpt.txt")
            print(f"{target}: {PACKAGE} cannot be had from Debian's archive (above); only excerpt.txt, 300 kB of "
                  "one novel, was put there", file=sys.stderr)
            return
        for lines in unpack(data.read_bytes()):
            if "A NOTE ON THE TEXT" in lines:  # an editor's, behind one of the novels
                lines = lines[: lines.index("A NOTE ON THE TEXT")]
            name = lines[0].lower().replace(" ", "_") + ".txt"
            novel = ("\n".join(lines).strip() + "\n").encode("utf-8")
            digest = hashlib.sha256(novel).hexdigest()
            if SHA256.get(name) != digest:
                sys.exit(f"{PACKAGE}: {name} has SHA-256 {digest}; expected {SHA256.get(name)}. The package has "
                         "changed: look at what it holds now before you trust it")
            (target / name).write_bytes(novel)
            print(f"{target / name}: {len(novel)} bytes")


if __name__ == "__main__":
    main()
