# SPDX-License-Identifier: Apache-2.0
"""Names that people read: of PBS jobs and of log folders.

qsub refuses names over 230 characters and most punctuation; it takes a name of digits, but its JSON then
holds a number. So names keep letters, digits and `_ . + -`, begin with a letter, and stay short of the limit.
"""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

LONGEST_LABEL = 180  # leaves room for key and token within PBS's 230


def label(rule: str, wildcards: Mapping[str, object]) -> str:
    """`rule.value.value`, as PBS allows it."""
    words = [_allowed(rule), *(_allowed(str(value)) for value in wildcards.values())]
    text = ".".join(word for word in words if word).lstrip("0123456789_.+-")
    return text[:LONGEST_LABEL] or "job"


def job_name(base: str) -> str:
    """A name that no other submission bears, so that a lost id can be found by it."""
    return f"{base}.{secrets.token_hex(3)}"


def log_folder(root: Path, rule: str, wildcards: Mapping[str, object]) -> Path:
    """`root/rule/value.value`, where a person looks; PBS writes `<id>.OU` into it."""
    values = ".".join(_allowed(str(value)) for value in wildcards.values())
    return root / _allowed(rule) / (values.lstrip(".")[:LONGEST_LABEL] or ".")


def _allowed(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", text)
