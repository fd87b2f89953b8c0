import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "deploy/audit.py"
SPEC = importlib.util.spec_from_file_location("audit", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

SOUND = {"name": "sound", "version": "1", "vulns": []}
BROKEN = {
    "name": "broken",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}, {"id": "PYSEC-2", "fix_versions": []}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "not found: unknown"}


def test_a_vulnerable_package_fails_the_audit_and_is_named_with_its_remedy():
    lines, vulnerable = audit.verdict([SOUND, BROKEN])

    assert vulnerable
    assert lines[:2] == [
        "broken 2: PYSEC-1, fixed in 3",
        "broken 2: PYSEC-2, fixed in nothing yet",
    ]


def test_a_package_that_could_not_be_looked_up_is_named_and_fails_nothing():
    lines, vulnerable = audit.verdict([SOUND, UNKNOWN])

    assert not vulnerable
    assert lines[0] == "not audited: not found: unknown"


def test_an_audit_that_looked_up_nothing_is_none():
    with pytest.raises(audit.NotAudited, match="none of the 1 packages"):
        audit.verdict([UNKNOWN])
