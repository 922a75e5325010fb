"""Find out which variable of a dataset holds which times."""

from nowcast.netcdf.attributes import text
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.epochs import counts_since


def time_variable(dataset, field: Field, standard_name: str = "time") -> str | None:
    """Return the name of the time (or reference time) variable of a field, scalar or over its frame dimensions; None without.

    Of several, those with units of the form "… since …" come first, then those of a dimension or in the `coordinates`
    attribute, then the one that is called like the standard name.
    """
    variable = dataset.variables[field.variable]
    listed = [*variable.dimensions, *(text(variable, "coordinates") or "").split()]
    fitting = [name for name in dataset.variables if _is_time(dataset.variables[name], standard_name, field.frame_dims)]

    def order(name: str) -> tuple:
        return not counts(dataset.variables[name]), name not in listed, name != standard_name

    return min(fitting, key=order, default=None)


def _is_time(variable, standard_name: str, frame_dims: tuple[str, ...]) -> bool:
    declared = text(variable, "standard_name")
    plain = {standard_name, f"valid_{standard_name}"}
    names = plain | set(frame_dims if standard_name == "time" and (counts(variable) or is_text(variable)) else ())
    named = declared == standard_name if declared else variable.name in names
    dims = dict(zip(variable.dimensions, variable.shape, strict=True))
    if is_text(variable) and variable.dtype == "S1" and dims:
        dims.popitem()  # the dimension of the characters of a text
    return named and {dim for dim, size in dims.items() if size != 1} <= set(frame_dims)


def counts(variable) -> bool:
    """Return whether the units of a variable are of the form "… since …"."""
    return counts_since(text(variable, "units"))


def is_text(variable) -> bool:
    """Return whether a variable holds text."""
    return variable.dtype is str or variable.dtype == "S1"
