"""Tables in files."""

from pathlib import Path
from typing import Any

import numpy as np

from ._config import TABLES, TableConfig
from ._errors import CommandError, nearest

MOST_CLASSES = 20


def read_table(path: str) -> Any:
    """Return a DataFrame of a .csv or .parquet file.

    **Raises:** `CommandError` for another file, an empty or an unreadable one.
    """
    place = Path(path)
    if place.suffix.lower() not in TABLES:
        raise CommandError(f"{path} is no table: give a .csv or a .parquet file")
    if not place.is_file():
        raise CommandError(f"{path} does not exist: check the path of the table")
    pandas = _pandas()
    try:
        is_csv = place.suffix.lower() == ".csv"
        table = pandas.read_csv(place) if is_csv else pandas.read_parquet(place)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise CommandError(
            f"{path} is no table: {' '.join(str(error).split())}"
        ) from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not in UTF-8: convert it first") from None
    except OSError:
        raise
    except Exception as error:  # pyarrow has its own kinds of errors
        if type(error).__module__.split(".")[0] != "pyarrow":
            raise
        raise CommandError(
            f"{path} is no table: {' '.join(str(error).split())}"
        ) from None
    if not len(table):
        raise CommandError(f"{path} has no rows")
    return table


def column(table: Any, name: str, path: str) -> Any:
    """Return a column; raise with the nearest name if there is none."""
    if name not in table.columns:
        names = list(map(str, table.columns))
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        hint = nearest(name, names) or f"; its columns are {shown}"
        raise CommandError(f"{path} has no column {name!r}{hint}")
    return table[name]


def inputs(table: Any, config: TableConfig, path: str) -> Any:
    """Return the columns that predictions are made from."""
    if config.features is None:
        names = [name for name in table.columns if name != config.target]
    else:
        names = list(config.features)
    if config.target in names:
        raise CommandError(f"features holds the target {config.target!r}: remove it")
    if not names:
        raise CommandError(f"{path} has no column beside the target {config.target!r}")
    for name in names:
        column(table, name, path)
    return table[names]


def targets(table: Any, config: TableConfig, path: str) -> tuple[str, np.ndarray]:
    """Return the task and the targets.

    **Raises:** `CommandError` for missing targets, or ones of a wrong type.
    """
    values = column(table, config.target, path)
    missing = np.flatnonzero(values.isna().to_numpy())
    if len(missing):
        raise CommandError(
            f"{len(missing)} rows of {path} have no {config.target!r}, the first is "
            f"row {missing[0]}: remove them"
        )
    pandas = _pandas()
    is_number = pandas.api.types.is_numeric_dtype(values.dtype) and not (
        pandas.api.types.is_bool_dtype(values.dtype)
    )
    task = config.task
    if task == "auto":
        task = "regression" if is_number else "classification"
    if task == "regression" and not is_number:
        numbers = pandas.to_numeric(values, errors="coerce")
        row = int(np.flatnonzero(numbers.isna().to_numpy())[:1].sum())
        raise CommandError(
            f"the column {config.target!r} of {path} is not of numbers, e.g. "
            f"{values.iloc[row]!r} in row {row}: correct it, or give "
            "--task classification"
        )
    if task == "classification":
        return task, values.astype(str).to_numpy(object).astype(str)
    return task, values.to_numpy(np.float64)


def split(rows: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the training rows and of the held-out ones."""
    count = round(fraction * rows)
    if rows - count < 2:
        raise CommandError(
            f"{rows} rows, of which {count} are held out, leave fewer than 2 for "
            "training: give more rows, or a smaller --test"
        )
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def write_table(path: str, table: Any) -> None:
    """Write a .csv or .parquet file whole or not at all."""
    from .._io.atomic import replace_whole

    place = Path(path)
    if place.suffix.lower() == ".csv":
        replace_whole(place, lambda partial: table.to_csv(partial, index=False))
    elif place.suffix.lower() == ".parquet":
        replace_whole(place, lambda partial: table.to_parquet(partial, index=False))
    else:
        raise CommandError(f"{path}: give a name that ends with .csv or .parquet")


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise CommandError(
            'tables are read by pandas: pip install "jaxprob[command]"'
        ) from None
    return pandas
