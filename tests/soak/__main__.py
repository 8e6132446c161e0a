"""`make soak`: the long rounds. Every module beside this one is a part, and has `run(minutes, seed) -> what was
broken`.

python -m tests.soak [--minutes N] [--seed N] [PART…]
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from pathlib import Path


def main() -> int:
    parts = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long a part goes on that has no end of its own")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of what is left to chance"
    )
    parser.add_argument("part", nargs="*", choices=[*parts, []], help=f"of {', '.join(parts)}; default: all")
    options = parser.parse_args()
    broken: list[str] = []
    for part in options.part or parts:
        print(f"== {part}", flush=True)
        found = importlib.import_module(f"tests.soak.{part}").run(options.minutes, options.seed)
        broken += [f"{part}: {line}" for line in found]
    for line in broken:
        print(line, file=sys.stderr)
    print("soak: every promise held" if not broken else f"soak: {len(broken)} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
