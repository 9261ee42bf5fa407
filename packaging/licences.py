#!/usr/bin/env python3
"""The licences of all libraries that the program contains: fails if one is not accepted.

    packaging/licences.py                 check
    packaging/licences.py --report FILE   check, and write them with their texts
    packaging/licences.py --list          names and versions
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

# They ask for no more than that their text goes along. What is not here has to be looked at before it is.
ACCEPTED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
TEXTS = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def libraries(target):
    """Packages that the program is linked of, and their procedural macros; not what only tests or build scripts use."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    packages = [package for package in metadata["packages"] if package["id"] in found - {root}]
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def is_accepted(expression, accepted):
    """An SPDX expression, in which one of what OR joins is enough. Older crates write "/" for OR."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        result = both()
        while words and words[0] == "OR":
            words.pop(0)
            result = both() or result
        return result

    def both():
        result = one()
        while words and words[0] == "AND":
            words.pop(0)
            result = one() and result
        return result

    def one():
        word = words.pop(0)
        if word == "(":
            result = either()
            if not words or words.pop(0) != ")":
                raise ValueError(f"a parenthesis is open in {expression!r}")
            return result
        if words and words[0] == "WITH":
            del words[:2]
        return word in accepted

    try:
        result = either()
    except IndexError:
        raise ValueError(f"cannot read {expression!r}") from None
    if words:
        raise ValueError(f"cannot read {expression!r}")
    return result


def report(packages):
    """Each text once, with those that it is the licence of."""
    texts = {}
    for package in packages:
        name = f"{package['name']} {package['version']} ({package['license']})"
        directory = Path(package["manifest_path"]).parent
        files = sorted(file for file in directory.iterdir() if file.is_file() and TEXTS.match(file.name))
        for file in files:
            text = file.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(name)
        if not files:
            texts.setdefault("(The package contains no text of its licence.)", []).append(name)
    out = ["pooler contains these libraries, which are licensed as follows.\n"]
    for package in packages:
        out.append(f"{package['name']} {package['version']}: {package['license']}")
    for text, names in texts.items():
        out += ["", "=" * 80, *names, "-" * 80, text]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu", help="[default: %(default)s]")
    parser.add_argument("--accept", default=",".join(ACCEPTED), metavar="A,B", help="instead of those that are accepted")
    arguments = parser.parse_args()
    packages = libraries(arguments.target)
    if len(packages) < 10:
        sys.exit("licences: cargo metadata names hardly any library")
    accepted = set(arguments.accept.split(","))
    wrong = []
    for package in packages:
        try:
            if not is_accepted(package["license"] or "", accepted):
                wrong.append(f"{package['name']} {package['version']}: {package['license'] or 'no licence'} is not accepted")
        except ValueError as error:
            wrong.append(f"{package['name']} {package['version']}: {error}")
    if wrong:
        hint = "Use another library, or add the licence to ACCEPTED in packaging/licences.py if it may be there."
        sys.exit("\n".join([*wrong, hint]))
    if arguments.report:
        arguments.report.write_text(report(packages))
    if arguments.list:
        print("\n".join(f"{package['name']} {package['version']}" for package in packages))
    else:
        print(f"licences: {len(packages)} libraries, all accepted")


main()
