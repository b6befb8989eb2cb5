# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The long drill: every fault, a hundred kills; its table, with where and when.

python benchmarks/drill.py --config=configs/quickstart.py --workdir=runs/drill \\
    > benchmarks/results/drill.md

Takes what profiling.drill takes, half an hour on two quiet cores, and ends with its code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from podium import cli
from profiling import drill


def main(argv: list[str]) -> int:
    print(f"# python benchmarks/drill.py {' '.join(argv)}\n\n```", flush=True)
    code = drill.main(argv)
    print("\n".join(["", f"exit code: {code}", *report.lines(report.provenance())]))
    print("```")
    return code


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0)
    cli.run(main)
