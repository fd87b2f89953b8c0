"""Runs pip-audit to find known vulnerabilities in all pinned packages.

pip-audit succeeds if its database knows none of the packages, for example with a mirrored index
that has no such database. That is not an audit: it is reported, and with `--required` it fails.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PINNED = tuple(f"requirements/{path.name}" for path in REPOSITORY.glob("requirements/*.txt"))
TIME_LIMIT = 300


class NotAudited(Exception):
    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where no audit is possible")
    required = parser.parse_args().required
    try:
        packages = ask_pip_audit()
        lines, vulnerable = verdict(packages)
    except NotAudited as reason:
        print(f"audit: SKIPPED, the vulnerability database cannot be used: {reason}")
        return 1 if required else 0
    print(*lines, sep="\n")
    return 1 if vulnerable else 0


def ask_pip_audit() -> list[dict[str, Any]]:
    command = [str(Path(sys.executable).parent / "pip-audit"), "--require-hashes", "--disable-pip"]
    command += ["--format=json", "--progress-spinner=off"]
    for name in PINNED:
        command += ["--requirement", str(REPOSITORY / name)]
    try:
        audit = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        packages: list[dict[str, Any]] = json.loads(audit.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        raise NotAudited(f"it did not answer within {TIME_LIMIT} s") from None
    except ValueError:
        # Without a connection, pip-audit prints a traceback and no report.
        raise NotAudited(audit.stderr.strip().splitlines()[-1]) from None
    return packages


def verdict(packages: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """What to print, and whether anything is vulnerable. Raises NotAudited if all is unknown."""
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        raise NotAudited(f"it knows none of the {len(packages)} packages")
    lines = [f"not audited: {each['skip_reason']}" for each in packages if each not in audited]
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "nothing yet"
            lines.append(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    lines.append(f"audit: {len(vulnerable)} of {len(audited)} packages have known vulnerabilities")
    return lines, bool(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
