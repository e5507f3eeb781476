"""How a row of the decision table reads on a line."""

from zerotrust.common import times
from zerotrust.policy.table import Client, KeyPrincipal, Principal, Row, Window

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def port_of(row: Row) -> str:
    """Port and protocol."""
    return f"{row.port}/{row.protocol}"


def requests_of(row: Row) -> str:
    """Methods and paths; empty where the row is about every request."""
    methods, paths = ",".join(row.methods or ()), " ".join(row.paths or ())
    return " ".join(part for part in (methods or ("any method" if paths else ""), paths) if part)


def conditions_of(row: Row) -> list[str]:
    """What must hold beside who, where and what."""
    found = [_principal(row.principal)] if row.principal is not None else []
    found += [f"scope {scope}" for scope in row.scopes]
    found += ["mutual TLS"] if row.require_mtls else []
    found += [_window(row.window)] if row.window is not None else []
    found += [f"until {times.render(row.until)}"] if row.until is not None else []
    return found


def _principal(principal: Principal) -> str:
    if isinstance(principal, KeyPrincipal):
        return f"API key {principal.name}" if principal.name else f"API key with {','.join(principal.scopes)}"
    claims = "".join(f", {name} {' or '.join(values)}" for name, values in principal.claims)
    return f"token of {principal.provider} for {' or '.join(principal.audiences)}{claims}"


def _window(window: Window) -> str:
    days = _runs(window.days)
    clock = f"{_clock(window.start)}-{_clock(window.end)}"
    parts = [days if len(window.days) < 7 else "", "" if clock == "00:00-24:00" else clock, window.time_zone]
    return " ".join(part for part in parts if part)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _runs(days: tuple[int, ...]) -> str:
    """Days in a row as `Mon-Fri`."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(_DAYS[run[0]] + (f"-{_DAYS[run[-1]]}" if len(run) > 1 else "") for run in runs)


def client_of(client: Client) -> str:
    """Who connects; pods in the words of `kubectl get pods -l`."""
    return str(client if client.pods is None else client.pods)
