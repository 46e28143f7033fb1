"""PHP's `serialize()`: scalars and arrays are decoded, everything else is refused, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.codec import dumps
from hub.codec import loads as json_loads
from hub.domain import php_serialized
from hub.errors import PayloadError


def serialized(value: Any) -> str:
    """As PHP writes it."""
    if value is None:
        return "N;"
    if isinstance(value, bool):
        return f"b:{int(value)};"
    if isinstance(value, int):
        return f"i:{value};"
    if isinstance(value, float):
        return f"d:{value!r};"
    if isinstance(value, str):
        return f's:{len(value.encode())}:"{value}";'
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return f"a:{len(value)}:{{{''.join(serialized(k) + serialized(v) for k, v in pairs)}}}"


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(max_size=20)
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, min_size=1, max_size=4)
    ),
    max_leaves=20,
)


@given(_values)
def test_what_php_wrote_is_read(value: Any) -> None:
    text = serialized(value)
    assert php_serialized.looks_serialized(text)
    assert php_serialized.loads(text) == value
    assert json_loads(dumps(php_serialized.loads(text))) == value


@given(st.text(max_size=60) | st.text(alphabet='abdisNOCrR:;{}"0123456789', max_size=60))
def test_any_other_text_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        dumps(php_serialized.loads(text))
    except PayloadError:
        return


def test_keys_that_do_not_count_from_zero_make_an_object() -> None:
    assert php_serialized.loads('a:2:{i:1;s:1:"a";i:2;s:1:"b";}') == {"1": "a", "2": "b"}
    assert php_serialized.loads("a:0:{}") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "i:5",
        "i:;",
        "i:1;i:2;",
        "b:2;",
        "d:INF;",
        "d:NAN;",
        "d:1e999;",
        's:5:"ab";',
        's:1:"ü";',
        's:-1:"";',
        'O:8:"stdClass":0:{}',
        'a:1:{i:0;O:8:"stdClass":0:{}}',
        'C:1:"A":0:{}',
        "a:1:{i:0;r:1;}",
        "R:1;",
        'E:3:"A:B";',
        "a:1:{a:0:{}i:1;}",
        "a:2:{i:0;N;i:0;N;}",
        "a:1:{b:1;N;}",
        "a:9999999:{i:0;N;}",
        "a:1:{i:0;N;",
        "a:1:{i:0;" * 200 + "N;" + "}" * 200,
        "i:" + "9" * 5000 + ";",
        's:9999999:"";',
    ],
)
def test_what_is_no_plain_data_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="PHP data"):
        php_serialized.loads(text)


def test_size_and_count_are_bounded() -> None:
    with pytest.raises(PayloadError, match="bytes"):
        php_serialized.loads(serialized("x" * php_serialized.MAX_BYTES))
    with pytest.raises(PayloadError, match="values"):
        php_serialized.loads(serialized([None] * php_serialized.MAX_VALUES))
