"""What the tables of both kinds of page have in common; table.js sorts them."""
import math

import pandas


def nothing_or(text, value):
    return ("", math.nan) if pandas.isna(value) else (text(value), value)


def heads(columns):
    """columns: (key, heading, whether small comes first when clicked, f(row) -> (text, value to sort by or None))."""
    result = []
    for key, heading, small_first, text in columns:
        number = "" if text is None or key == "hash" else ' class="number"'
        small = " data-small" if small_first else ""
        result.append(f'<th scope="col" data-key="{key}"{number}{small}><button type="button">{heading}</button></th>')
    return "".join(result)
