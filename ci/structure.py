#!/usr/bin/env python3
"""Holds the tree to its structure. Every check is one function below and counts as one test.

    ci/structure.py            runs all of them
    ci/structure.py --list     their names
    ci/structure.py NAME       runs one; exit status 1 and a reason per finding if the tree breaks it
"""
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import std_headers

os.chdir(Path(__file__).resolve().parent.parent)
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


@functools.cache
def files(pattern=""):
    """Every file of the project: tracked, or not yet tracked and not ignored."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], capture_output=True, check=True)
    paths = sorted(path for path in listed.stdout.decode().split("\0") if path and Path(path).is_file())
    return [path for path in paths if re.search(pattern, path)]


@functools.cache
def text(path):
    return Path(path).read_text(encoding="utf-8", errors="replace")


@functools.cache
def code(path):
    """A C++ file without its comments; strings stay, line numbers too."""
    def blank(match):
        return match[0] if match[0][0] in "\"'" else re.sub(r"[^\n]", "", match[0]) or " "
    return re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|//[^\n]*|/\*.*?\*/', blank, text(path), flags=re.S)


@functools.cache
def code_without_strings(path):
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', re.sub(r'R"(\w*)\(.*?\)\1"', '""', code(path), flags=re.S))


def words(line):
    """The words of a line, identifiers split: RankCount and rank_count are both rank, count."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", line)]


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', code(path), flags=re.M)


def find(paths, regex, reason, of=text):
    """A finding for every line that the expression matches."""
    for path in paths:
        for number, line in enumerate(of(path).splitlines(), 1):
            if match := re.search(regex, line):
                yield f"{path}:{number}: '{match[0]}': {reason}"


# ---- Layers -----------------------------------------------------------------------------------------

@check
def ref_includes_nothing_parallel():
    """Directly or through what it includes."""
    for start in files(r"^ref/.*\.[ch]pp$"):
        seen, waiting = {start}, [start]
        while waiting:
            path = waiting.pop()
            for name in includes(path):
                if re.match(r"(parallel|suites|reports)/|mpi|nccl", name):
                    yield f"{start}: includes {name}" + (f" through {path}" if path != start else "")
                elif Path(name).is_file() and name not in seen:
                    seen.add(name)
                    waiting.append(name)


@check
def ref_knows_no_parallel_word():
    """ref/ is a textbook of one device."""
    single = {"rank", "ranks", "shard", "shards", "sharded", "mesh", "mpi", "nccl", "pipeline", "pipelined"}
    pairs = {("tensor", "parallel"), ("data", "parallel")}
    for path in files("^ref/"):
        for number, line in enumerate(text(path).splitlines(), 1):
            found = words(line)
            for word in [w for w in found if w in single] + [p for p in zip(found, found[1:]) if p in pairs]:
                word = word if isinstance(word, str) else "-".join(word)
                yield f"{path}:{number}: '{word}': ref/ trains on one device and knows nothing parallel"


BELOW = {"kernels": "kernels", "datasets": "kernels|ref|datasets", "ref": "kernels|ref|datasets",
         "parallel": "kernels|ref|datasets|parallel", "reports": "kernels|ref|datasets|parallel|reports"}


@check
def layers_include_those_below():
    """A build that puts faults in replaces a part of parallel/, which includes that replacement alone."""
    for layer, below in BELOW.items():
        for path in files(rf"^{layer}/.*\.([ch]pp|cuh?)$"):
            for name in includes(path):
                if re.match(r"(kernels|ref|datasets|parallel|reports|suites)/", name) and not re.match(f"({below})/", name) \
                        and (path, name) != ("parallel/device/device.hpp", "suites/mutants/device.hpp"):
                    yield f"{path}: includes {name}: {layer}/ stands below it"


SUITES = ["", "run", "gates", "timing", "plans", "planner/chunks", "planner", "planner/published",
          "planner/measure", "planner/answer", "planner/export", "costs", "certify", "sweep", "commands", "mutants"]


@check
def suites_have_an_order():
    """Each folder of suites/ includes itself and those before it in SUITES; files outside any stand before all."""
    sources = files(r"^suites/(?!tests/|main\.cpp$).*\.[ch]pp$")
    folder = {path: os.path.dirname(path).removeprefix("suites").lstrip("/") for path in sources}
    for name in set(SUITES) - set(folder.values()):
        yield f"ci/structure.py: SUITES names {name}, and suites/ has no sources there"
    for path in sources:
        if folder[path] not in SUITES:
            yield f"{path}: SUITES in ci/structure.py does not say where this folder stands"
            continue
        for name in includes(path):
            if name in folder and SUITES.index(folder[name]) > SUITES.index(folder[path]):
                yield f"{path}: includes {name}, of a folder that stands above its own"


@check
def wide_code_stays_in_its_file():
    """Of an inline function the linker keeps one copy: one compiled for AVX-512 must not be everybody's."""
    for path in sorted(Path(os.environ.get("B", "build")).glob("obj/kernels/*/*_avx*.o")):
        symbols = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"^[0-9a-f]+ [VWu] (.*)", symbols, flags=re.M):
            if "Avx" not in name and "_avx" not in name:  # a class or namespace of this set's own
                yield f"{path}: '{name}' may replace the copy that runs on any processor"


# ---- Strategies -------------------------------------------------------------------------------------

PARALLEL = r"^parallel/(?!comm/|cuda/|nccl/).*\.cpp$"
ROLES = "|".join(re.findall(r"^class (\w+) \{", code("parallel/roles.hpp"), flags=re.M))
REGISTRATION = rf'\bStrategy<(?:{ROLES})>\s+\w+\s*[({{]\s*"([^"]+)"'


def strategies():
    """The files of parallel/ that register a strategy."""
    return [path for path in files(PARALLEL) if registered_names(path)]


def classes(path):
    return re.findall(rf"\b(?:class|struct)\s+(\w+)[^;{{]*:\s*(?:public\s+)?(?:{ROLES})\b", code(path))


def naming(path, strategy):
    """Findings where `path` names the strategy of another file: its file, its classes, its names, its words."""
    def own(found):
        return sorted(set(found(strategy)) - set(found(path)))

    stem = Path(strategy).stem
    reason = f"names the strategy of {strategy}"
    yield from find([path], rf"\b{stem}\.[ch]pp\b", reason)
    if stem != "data":  # an everyday word in code
        yield from find([path], rf"(?<![\w.>]){stem}(?![\w(])", reason, of=code_without_strings)
    for name in own(classes):
        yield from find([path], rf"\b{name}\b", reason, of=code)
    for name in own(registered_names):
        yield from find([path], f'"{re.escape(name)}"', reason, of=code_without_fallbacks)
    for name in own(plan_words):  # where something is asked by it; "to" is a word of any sentence
        yield from find([path], rf'(?:[(\[{{]|[=!]=)\s*"{re.escape(name)}"', reason, of=code_without_fallbacks)


def registered_names(path):
    return re.findall(REGISTRATION, code(path))


WORD = r'(\{\s*"(\w+)",\s*)"[^"]*"(,\s*\{)'


def plan_words(path):
    """The plan's words that the file declares: {"sp", "0", {"0", "1"}, "help"}."""
    return [match[1] for match in re.findall(WORD, code(path))]


def code_without_fallbacks(path):
    """Whoever shares a word says its fallback too, and that is the name of the role's default."""
    return re.sub(WORD, r'\1""\3', code(path))


@check
def strategies_register():
    """A file that implements a role and does not register itself would never be chosen; one elsewhere, not be found."""
    for path in files(PARALLEL):
        if classes(path) and not registered_names(path):
            yield f"{path}: class {classes(path)[0]} has a role, but no `const Strategy<Role> strategy(\"name\", ...)`"
    for path in files(r"^parallel/.*\.([ch]pp|cuh?)$"):
        if (path in strategies()) != path.startswith("parallel/strategies/"):
            yield f"{path}: strategies, and nothing else, stand in parallel/strategies/"


@check
def strategies_name_no_sibling():
    """A strategy is read, added and removed alone."""
    for path in strategies():
        for other in strategies():
            if other != path:
                yield from naming(path, other)


@check
def strategies_are_short():
    for path in strategies():
        lines = len(text(path).splitlines())
        if lines > 300:
            yield f"{path}: {lines} lines; a strategy is one idea of at most 300"


@check
def executor_names_no_strategy():
    """The step is written once and strategies are plugged in: nothing else in parallel/ knows one by name."""
    for path in sorted(set(files(r"^parallel/.*\.[ch]pp$")) - set(strategies())):
        for strategy in strategies():
            yield from naming(path, strategy)


# ---- Documents --------------------------------------------------------------------------------------

def commands(path):
    """(line number, command) of each command in a document's blocks, lines that end in \\ joined."""
    start, joined = 0, ""
    for number, line in enumerate(text(path).splitlines(), 1):
        if not joined and not re.match(r" {4}\S|\$ ", line):
            continue
        start = start if joined else number
        joined += line.strip().removesuffix("\\")
        if not line.endswith("\\"):
            yield start, joined.split("  #")[0]
            joined = ""


def headings(path):
    """The anchors of a document's headings."""
    found = re.findall(r"^#+ (.*)$", text(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@check
def links_lead_somewhere():
    for path in files(r"\.md$"):
        for number, line in enumerate(text(path).splitlines(), 1):
            for link in re.findall(r"\]\(([^)\s]+)\)", line):
                to, _, anchor = link.partition("#")
                if "://" in to:
                    continue
                target = os.path.normpath(os.path.join(os.path.dirname(path), to)) if to else path
                if not Path(target).exists():
                    yield f"{path}:{number}: {link}: no such file"
                elif anchor and anchor not in headings(target):
                    yield f"{path}:{number}: {link}: {target} has no such heading"


@check
def suites_are_listed():
    """Whoever looks for a suite looks in the table of suites/README.md."""
    for path in files(r"^suites/[^/]*\.toml$"):
        if f"\n| `{Path(path).name}` |" not in text("suites/README.md"):
            yield f"{path}: the table of suites in suites/README.md does not have it"


@check
def commands_are_understood():
    """A command in a document names options, targets and files that are there."""
    sources = "".join(text(path) for path in files(r"^suites/.*\.[ch]pp$|^ci/|\.py$") if "/tests/" not in path)
    known = set(re.findall(r"--[a-z][a-z0-9_-]+", sources)) | {"--help", "--benchmark_filter", "--gtest_filter"}
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.M))
    for path in files(r"\.md$"):
        for number, command in commands(path):
            if not re.search(r"\bbuild(-mutants)?/lockstep|\bmake\b", command):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", re.sub(r'"[^"]*"|.*mpirun ', "", command)):
                if option not in known:
                    yield f"{path}:{number}: {option}: no program here has such an option"
            for target in re.findall(r"(?:^|&& |\$ )make ((?:-\S+ |\w+=\S+ )*)([a-z-]+)(?=\s|$)", command):
                if target[1] not in targets:
                    yield f"{path}:{number}: make {target[1]}: no such target"
            for name in re.findall(r"(?<![\w/.-])(?:suites|datasets|reports|kernels|parallel|ci)/[\w./-]+\w", command):
                if not Path(name).exists():
                    yield f"{path}:{number}: {name}: no such file"


# ---- The tree ---------------------------------------------------------------------------------------

@check
def top_level_is_as_described():
    allowed = {"Makefile", "README.md", "LICENSE", "CONTRIBUTING.md",
               "ref", "parallel", "kernels", "suites", "datasets", "reports", "ci"}
    for name in sorted({path.split("/")[0] for path in files()}):
        if name not in allowed and not name.startswith("."):
            yield f"{name}: does not belong at the top; CONTRIBUTING.md says where things live"


@check
def every_source_is_built():
    """The Makefile finds sources by folder; one in another folder would be left out silently."""
    built = subprocess.run(["make", "-s", "sources"], capture_output=True, text=True, check=True).stdout.split()
    for path in files(r"\.cpp$"):
        if path not in built and not path.startswith("kernels/cuda/"):
            yield f"{path}: no program of the Makefile contains it"


@check
def what_is_linked_knows_its_files():
    """A strategy whose file is gone must be gone from the program: its objects alone do not say so."""
    database = subprocess.run(["make", "-pqs", "sources"], capture_output=True, text=True).stdout
    rules = [rule for rule in database.split("\n\n") if re.search(r"^\t.* -o \$@ .*(linked|\$\^)", rule, re.M)]
    if len(rules) < 10:
        yield "Makefile: no rules that link programs were found"
    for rule in rules:
        target, needs = re.search(r"^(\S+): (.*)$", rule, re.M).groups()
        if not re.search(r"(^| )\w+/files( |$)", needs):
            yield f"Makefile: {target} does not depend on the list of files"


@functools.cache
def headers(path):
    """What a file includes, itself or through the project's headers: those (and itself), and those of others."""
    mine, others = {path}, set()
    waiting = [path]
    while waiting:
        for name in includes(waiting.pop()):
            if not Path(name).is_file():
                along = std_headers.ALONG.get(name, "").split()
                others.update([name], along, *(std_headers.ALONG.get(n, "").split() for n in along))
            elif name not in mine:
                mine.add(name)
                waiting.append(name)
    return mine, others


@check
def standard_names_are_included():
    """By their header: another library, or this one's next version, may not give them away with others."""
    uses = {header: "|".join(names.split()) for header, names in std_headers.NAMES.items()}
    for path in files(r"\.(cpp|hpp|cu|cuh)$"):
        for header, names in uses.items():
            if headers(path)[1].isdisjoint(header.split("|")):
                reason = f"is in <{header.split('|')[0]}>, which nothing included here includes"
                space = "fmt" if header.startswith("fmt/") else "std"
                yield from list(find([path], rf"\b{space}::(?:{names})\b", reason, of=code_without_strings))[:1]


def namespace_lines(path):
    """(namespaces, line) of each line that stands in namespaces alone; one without a name is the file's own."""
    inside, depth = [], 0  # namespaces; braces
    for line in re.sub(r"'(?:\\.|[^'\\])'", "0", code_without_strings(path)).splitlines():
        if depth == len(inside):
            if opened := re.match(r"(?:inline )?namespace ?([\w:]*) ?\{", line):
                inside.append(opened[1] or f"(of {path})")
            else:
                yield inside, line
        depth += line.count("{") - line.count("}")
        del inside[depth:]


TYPE = (r"(?:template <.*> *)?(?:struct|class|enum class|enum) (?:alignas\([^)]*\) )?"
        r"(\w+)(?: final)? *(?:\{|:(?!:))")


def offered(path):
    """The types, functions and constants that a header has in a namespace."""
    for _, line in namespace_lines(path):
        yield from re.findall(rf"^{TYPE}|^using (\w+) =|^(?!using |return |namespace |struct |class |template |enum )"
                              r"(?:\[\[\w+\]\] )?[\w:<>,*& ]*[\w>*&] [*&]?(\w+)(?:\(|\{| =)", line)


@functools.cache
def named(path):
    """What a file gives a name to, wherever in it: members and variables too."""
    return set(sum(re.findall(r"(?:\b(?:struct|enum class|class|enum|using|namespace|typename)|\.\.\.) (\w+)|\(\*(\w+)\)"
                              r"|[\w>*&] [*&]?(\w+)(?:\(|\[|\{| =|;|,|\))",
                              re.sub(r"\b(?:return|throw)\b", "", code_without_strings(path))), ()))


@check
def own_names_are_included():
    """A handful of sources is compiled at once (Makefile), and those before it include what the next one forgot."""
    places = {}
    for header in files(r"\.hpp$"):
        for name in sum(offered(header), ()):
            places.setdefault(name, set()).add(header)
    places.pop("", None)
    tested = re.compile(r"\b(?:TEST\w*|INSTANTIATE\w+)\([^)]*\)")  # such names are GoogleTest's
    if len(places) < 800:
        yield f"found {len(places)} names in headers: the expressions do not fit the code"
    for path in files(r"^(parallel|reports|suites)/.*\.[ch]pp$"):
        mine, _ = headers(path)
        known = set().union(*map(named, mine))
        used = set(re.findall(r"(?<![\w.>:])(?:k?[A-Z]\w*|\w+(?=\())", tested.sub("", code_without_strings(path))))
        for name in sorted(used & places.keys() - known):
            if places[name].isdisjoint(mine):
                yield f"{path}: {name} is in {' or '.join(sorted(places[name]))}, which it does not include"


@check
def no_machine_is_named():
    """Paths of one machine mean nothing on another."""
    project = [path for path in files() if not path.startswith("suites/tests/")]
    small = [path for path in project if Path(path).stat().st_size < 1_000_000]
    yield from find(small, r"(?<![\w./-])/(work|tmp)(?![\w-])", "a path of one machine")


@check
def files_are_small():
    for path in files():
        size = Path(path).stat().st_size
        if size > 1_500_000:
            yield f"{path}: {size / 1e6:.1f} MB; at most 1.5 MB is kept in the repository"


@check
def types_have_one_definition():
    """Two types of one name in one namespace link without a word, and take each other's functions."""
    places = {}
    for path in files(r"\.(hpp|cpp|cu)$"):
        for inside, line in namespace_lines(path):
            if defined := re.match(TYPE, line):
                places.setdefault("::".join([*inside, defined[1]]), []).append(path)
    if len(places) < 200:
        yield f"found {len(places)} types: the expressions do not fit the code"
    for name, paths in places.items():
        if len(paths) > 1:
            yield f"{name} is defined in {' and in '.join(paths)}"


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CHECKS))
        return 0
    chosen = sys.argv[1:] or list(CHECKS)
    if unknown := [name for name in chosen if name not in CHECKS]:
        print(f"ci/structure.py: no check {unknown[0]}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    broken = 0
    for name in chosen:
        findings = list(CHECKS[name]())
        broken += bool(findings)
        print("\n".join(findings) if findings else f"ok {name}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
