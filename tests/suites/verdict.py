"""What a suite says of pooler: the same of each test as at PostgreSQL itself, but for known differences."""

import difflib
import itertools
import sys

SOMETIMES = "as time will have it: "


def judge(suite, direct, pooled, known, left, few=1, by_first_line=False):
    """Ends the process. `direct` and `pooled` tell of each test how it went, all of it or in the first line, `known` why some of
    them differ (those marked with SOMETIMES need not). A known difference that is gone is no less wrong than a new one, and so
    are fewer tests than `few`."""
    wrong = []
    for test in sorted(direct.keys() | pooled.keys() | known.keys()):
        at_postgresql, behind_pooler = direct.get(test, "has not run"), pooled.get(test, "has not run")
        first = at_postgresql.partition("\n")[0], behind_pooler.partition("\n")[0]
        differs = first[0] != first[1] if by_first_line else at_postgresql != behind_pooler
        reason = known.get(test)
        if not reason and by_first_line and first[0].startswith(("fail", "error")) and first[1].startswith("pass"):
            print(f"{test}: fails at PostgreSQL itself only, as time will have it")
        elif differs and reason:
            print(f"{test}: differs: {reason}")
        elif differs:
            wrong.append(test)
            lines = difflib.unified_diff(at_postgresql.splitlines(), behind_pooler.splitlines(), "direct", "pooled", lineterm="", n=3)
            print(f"{test}: differs", *itertools.islice(lines, 100), sep="\n")
        elif reason and not reason.startswith(SOMETIMES):
            wrong.append(test)
            print(f"{test}: differs no longer, although: {reason}")
    print(f"{suite}: {len(direct)} tests, {len(wrong)} without a known reason")
    if left:
        print("left behind:", *left, sep="\n")
    if len(direct) < few:
        print(f"at least {few} should have run")
    sys.exit(1 if wrong or left or len(direct) < few else 0)
