#!/usr/bin/env python3
"""Checks a list of parts (CycloneDX): it names pooler, and all libraries of which the program is made.

    packaging/sbom.py FILE
"""

import json
import subprocess
import sys
from pathlib import Path

[file] = sys.argv[1:]
bom = json.loads(Path(file).read_text())
told = {f"{part['name']} {part['version']}" for part in bom["components"]}
command = [str(Path(__file__).with_name("licences.py")), "--list"]
expected = set(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines())
wrong = []
if (bom["bomFormat"], bom["metadata"]["component"]["name"]) != ("CycloneDX", "pooler"):
    wrong.append(f"{file} is no list of pooler's parts")
wrong += [f"{file} does not name {part}" for part in sorted(expected - told)]
wrong += [f"{file}: {part['name']} has no purl" for part in bom["components"] if not part.get("purl")]
if wrong:
    sys.exit("\n".join(wrong))
print(f"parts: {len(told)} libraries, with all {len(expected)} of the program")
