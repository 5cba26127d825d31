"""Text that cannot steer a terminal: control characters and invisible ones are shown instead of obeyed."""

from __future__ import annotations

import re

__all__ = ["visible"]

# The categories Cc, Cf, Cs, Zl and Zp but for the tab: controls (C0, DEL, C1); formats such as bidirectional
# overrides and isolates, zero widths and tags; separators of lines and paragraphs; halves of surrogates.
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2"
    "\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb"
    "\\U000110bd\\U000110cd\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e007f]"
)


def visible(text: str | bytes) -> str:
    """Escape what a terminal would obey or hide, as ``\\x1b`` or ``\\u202e``; bytes are taken for UTF-8."""
    if not isinstance(text, str):
        text = text.decode("utf-8", "backslashreplace")
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
