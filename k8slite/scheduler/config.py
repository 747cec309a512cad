"""KubeSchedulerConfiguration, version v1 (pure): profiles, their plugins, extenders, back-off.

`read_configuration` takes the decoded file; `build_profiles` makes plugins of it. Which plugins run
at an extension point follows kube-scheduler's rules: the defaults are enabled at all points
(multiPoint) unless disabled there, what a point names itself comes with its own weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from k8slite.api.meta import Obj
from k8slite.scheduler.framework import (
    EXTENSION_POINTS,
    SCORE_MAX,
    Factory,
    Handle,
    InvalidArgs,
    Plugin,
)
from k8slite.scheduler.plugins.table import DEFAULTS
from k8slite.scheduler.profile import Profile, make_profile

__all__ = [
    "DEFAULT_CONFIGURATION", "Configuration", "ExtenderConfig", "InvalidConfiguration",
    "ProfileConfig", "build_profiles", "default_profile", "read_configuration",
]  # fmt: skip

API_VERSION: Final = "kubescheduler.config.k8s.io/v1"
KIND: Final = "KubeSchedulerConfiguration"
FIELDS: Final = (
    "apiVersion", "kind", "parallelism", "leaderElection", "clientConnection",
    "healthzBindAddress", "metricsBindAddress", "enableProfiling", "enableContentionProfiling",
    "percentageOfNodesToScore", "podInitialBackoffSeconds", "podMaxBackoffSeconds", "profiles",
    "extenders", "delayCacheUntilActive",
)  # fmt: skip
EXTENDER_FIELDS: Final = (
    "urlPrefix", "filterVerb", "preemptVerb", "prioritizeVerb", "weight", "bindVerb",
    "enableHTTPS", "tlsConfig", "httpTimeout", "nodeCacheCapable", "managedResources", "ignorable",
)  # fmt: skip
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class InvalidConfiguration(ValueError):
    """The file says something that cannot be; the text names the field."""


@frozen
class PluginSet:
    """Enabled plugins with their weights (0: not said), and disabled ones ("*": all defaults)."""

    enabled: Mapping[str, int] = field(factory=dict)
    disabled: tuple[str, ...] = ()


@frozen(kw_only=True)
class ProfileConfig:
    scheduler_name: str = "default-scheduler"
    percentage: int | None = None
    points: Mapping[str, PluginSet] = field(factory=dict)
    """By extension point, and "multiPoint"."""
    args: Mapping[str, Mapping[str, Any]] = field(factory=dict)


@frozen(kw_only=True)
class ExtenderConfig:
    """`managed`: resources because of which alone it is asked (none: about every pod); `ignored`:
    those of them that the scheduler leaves to it."""

    url: str
    filter_verb: str = ""
    preempt_verb: str = ""
    prioritize_verb: str = ""
    bind_verb: str = ""
    weight: int = 1
    seconds: float = 5.0
    node_names_only: bool = False
    managed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    ignorable: bool = False
    ca: bytes = b""
    insecure: bool = False


@frozen(kw_only=True)
class Configuration:
    percentage: int = 0
    backoff_seconds_min: float = 1.0
    backoff_seconds_max: float = 10.0
    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    extenders: tuple[ExtenderConfig, ...] = ()
    election: Mapping[str, Any] = field(factory=dict)
    """What `leaderElection` says: leaderElect, resourceName, and in seconds leaseDuration,
    renewDeadline, retryPeriod."""


DEFAULT_CONFIGURATION: Final = Configuration()


def read_configuration(body: Any) -> Configuration:
    """Raises InvalidConfiguration."""
    _check_object(body, "the file")
    _check(body.get("kind") == KIND, f"kind: {body.get('kind')!r} is not {KIND}")
    version = body.get("apiVersion")
    _check(version == API_VERSION, f"apiVersion: {version!r} is not {API_VERSION}")
    _check_fields(body, FIELDS, "")
    low = _number(body, "podInitialBackoffSeconds", 1, 1)
    high = _number(body, "podMaxBackoffSeconds", 10, 1)
    _check(high >= low, f"podMaxBackoffSeconds: {high} is less than podInitialBackoffSeconds {low}")
    given = body.get("profiles") or [{}]
    profiles = tuple(_profile(each, f"profiles[{i}]") for i, each in enumerate(given))
    names = [profile.scheduler_name for profile in profiles]
    for i, own in enumerate(names):
        _check(own not in names[:i], f"profiles[{i}].schedulerName: {own!r} is there twice")
    extenders = body.get("extenders") or ()
    found = tuple(_extender(each, f"extenders[{i}]") for i, each in enumerate(extenders))
    _check(sum(bool(e.bind_verb) for e in found) <= 1, "extenders: only one can implement bind")
    return Configuration(
        percentage=_percentage(body, "") or 0,
        backoff_seconds_min=low,
        backoff_seconds_max=high,
        profiles=profiles,
        extenders=found,
        election=_election(body.get("leaderElection") or {}),
    )


def _profile(body: Any, where: str) -> ProfileConfig:
    _check_object(body, where)
    known = ("schedulerName", "percentageOfNodesToScore", "plugins", "pluginConfig")
    _check_fields(body, known, where)
    points = {}
    for point, plugins in (body.get("plugins") or {}).items():
        at = f"{where}.plugins.{point}"
        known_point = point == "multiPoint" or point in EXTENSION_POINTS
        _check(known_point, f"{at}: there is no such extension point")
        points[point] = _plugin_set(plugins or {}, at)
    args: dict[str, Mapping[str, Any]] = {}
    for i, each in enumerate(body.get("pluginConfig") or ()):
        at = f"{where}.pluginConfig[{i}]"
        _check_object(each, at)
        _check(bool(each.get("name")), f"{at}.name: is missing")
        _check(each["name"] not in args, f"{at}: repeated config for plugin {each['name']}")
        given = each.get("args") or {}
        _check_object(given, f"{at}.args")
        args[each["name"]] = {k: v for k, v in given.items() if k not in ("kind", "apiVersion")}
    return ProfileConfig(
        scheduler_name=body.get("schedulerName") or "default-scheduler",
        percentage=_percentage(body, where),
        points=points,
        args=args,
    )


def _plugin_set(body: Any, where: str) -> PluginSet:
    _check_object(body, where)
    _check_fields(body, ("enabled", "disabled"), where)
    enabled: dict[str, int] = {}
    for i, each in enumerate(body.get("enabled") or ()):
        at = f"{where}.enabled[{i}]"
        _check_object(each, at)
        _check(bool(each.get("name")), f"{at}.name: is missing")
        _check(each["name"] not in enabled, f"{at}: plugin {each['name']!r} is there twice")
        weight = each.get("weight") or 0
        _check(isinstance(weight, int) and weight >= 0, f"{at}.weight: {weight!r} is not a number")
        enabled[each["name"]] = weight
    return PluginSet(enabled, tuple(each["name"] for each in body.get("disabled") or ()))


def _extender(body: Any, where: str) -> ExtenderConfig:
    _check_object(body, where)
    _check_fields(body, EXTENDER_FIELDS, where)
    url = body.get("urlPrefix") or ""
    _check(url.startswith(("http://", "https://")), f"{where}.urlPrefix: {url!r} is no URL")
    weight = body.get("weight", 1)
    if body.get("prioritizeVerb"):
        _check(isinstance(weight, int) and weight > 0, f"{where}.weight: must be positive")
    managed = body.get("managedResources") or ()
    tls = body.get("tlsConfig") or {}
    return ExtenderConfig(
        url=url.rstrip("/"),
        filter_verb=body.get("filterVerb") or "",
        preempt_verb=body.get("preemptVerb") or "",
        prioritize_verb=body.get("prioritizeVerb") or "",
        bind_verb=body.get("bindVerb") or "",
        weight=weight,
        seconds=seconds_of(body.get("httpTimeout") or "5s", f"{where}.httpTimeout"),
        node_names_only=bool(body.get("nodeCacheCapable")),
        managed=tuple(each["name"] for each in managed),
        ignored=tuple(each["name"] for each in managed if each.get("ignoredByScheduler")),
        ignorable=bool(body.get("ignorable")),
        ca=_decoded(tls.get("caData") or ""),
        insecure=bool(tls.get("insecure")),
    )


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def _election(body: Obj) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    if "leaderElect" in body:
        found["leaderElect"] = bool(body["leaderElect"])
    if body.get("resourceName"):
        found["resourceName"] = str(body["resourceName"])
    for each in ("leaseDuration", "renewDeadline", "retryPeriod"):
        if body.get(each):
            found[each] = seconds_of(body[each], f"leaderElection.{each}")
    return found


def seconds_of(text: Any, where: str) -> float:
    """Of a duration as "1m30s". Raises InvalidConfiguration."""
    rest, total = str(text), 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hms"))]
        rest = rest[len(unit) :]
        if not number or unit not in UNITS:
            raise InvalidConfiguration(f"{where}: {text!r} is no duration such as 15s")
        total += float(number) * UNITS[unit]
    return total


def _percentage(body: Obj, where: str) -> int | None:
    value = body.get("percentageOfNodesToScore")
    good = value is None or (isinstance(value, int) and 0 <= value <= 100)
    at = f"{where}.percentageOfNodesToScore".lstrip(".")
    _check(good, f"{at}: {value!r} is not from 0 to 100")
    return value


def _number(body: Obj, own: str, default: int, least: int) -> int:
    value = body.get(own)
    if value is None:
        return default
    good = isinstance(value, int) and value >= least
    _check(good, f"{own}: {value!r} is not a number of at least {least}")
    number: int = value
    return number


def _check_object(body: Any, where: str) -> None:
    _check(isinstance(body, dict), f"{where}: must be an object")


def _check_fields(body: Obj, known: Sequence[str], where: str) -> None:
    unknown = [key for key in body if key not in known]
    at = f"{where}." if where else ""
    _check(not unknown, f"{at}{', '.join(map(str, unknown))}: unknown field")


def _check(good: bool, message: str) -> None:
    if not good:
        raise InvalidConfiguration(message)


# --- plugins of a profile ------------------------------------------------------------------------


def build_profiles(
    configuration: Configuration,
    registry: Callable[[str], Factory | None],
    handle: Callable[[str], Handle],
) -> dict[str, Profile]:
    """Profiles by scheduler name; `registry` knows a plugin's factory, `handle` makes what each
    profile's plugins are given. Raises InvalidConfiguration."""
    profiles = {}
    for i, each in enumerate(configuration.profiles):
        given = _with_ignored(each, configuration.extenders)
        where = f"profiles[{i}]"
        profiles[each.scheduler_name] = build_profile(
            given, configuration.percentage, registry, handle(each.scheduler_name), where
        )
    return profiles


def _with_ignored(profile: ProfileConfig, extenders: Sequence[ExtenderConfig]) -> ProfileConfig:
    """Resources that an extender manages alone are not looked at by NodeResourcesFit."""
    ignored = [resource for extender in extenders for resource in extender.ignored]
    if not ignored:
        return profile
    own = profile.args.get("NodeResourcesFit") or {}
    fit = {**own, "ignoredResources": [*(own.get("ignoredResources") or ()), *ignored]}
    return ProfileConfig(
        scheduler_name=profile.scheduler_name,
        percentage=profile.percentage,
        points=profile.points,
        args={**profile.args, "NodeResourcesFit": fit},
    )


def build_profile(
    config: ProfileConfig,
    percentage: int,
    registry: Callable[[str], Factory | None],
    handle: Handle,
    where: str,
) -> Profile:
    everywhere = merged(DEFAULTS, config.points.get("multiPoint") or PluginSet())
    made: dict[str, Plugin] = {}

    def plugin(own: str, at: str) -> Plugin:
        if own not in made:
            factory = registry(own)
            if factory is None:
                raise InvalidConfiguration(f'{at}: plugin "{own}" does not exist')
            try:
                made[own] = factory(config.args.get(own) or {}, handle)
            except InvalidArgs as error:
                raise InvalidConfiguration(f"{where}.pluginConfig[{own}].args.{error}") from None
        return made[own]

    points: dict[str, list[Plugin]] = {}
    weights: dict[str, int] = {}
    for point, kind in EXTENSION_POINTS.items():
        said = config.points.get(point) or PluginSet()
        at = f"{where}.plugins.{point}"
        for own in said.enabled:
            if not isinstance(plugin(own, at), kind):
                raise InvalidConfiguration(f'{at}: plugin "{own}" does not extend {point}')
        from_all = [
            own
            for own in everywhere
            if "*" not in said.disabled
            and own not in said.disabled
            and own not in said.enabled
            and isinstance(plugin(own, f"{where}.plugins.multiPoint"), kind)
        ]
        overridden = [own for own in said.enabled if own in everywhere]
        others = [own for own in said.enabled if own not in everywhere]
        order = [*overridden, *from_all, *others]
        points[point] = [made[own] for own in order]
        if point == "score":
            weights = {own: said.enabled.get(own) or everywhere.get(own) or 1 for own in order}
    unused = [own for own in config.args if own not in made and registry(own) is None]
    for own in unused:
        raise InvalidConfiguration(f'{where}.pluginConfig: plugin "{own}" does not exist')
    if any(weight * SCORE_MAX > 2**62 for weight in weights.values()):
        raise InvalidConfiguration(f"{where}.plugins.score: a weight is too large")
    share = config.percentage if config.percentage is not None else percentage
    try:
        return make_profile(
            points, scheduler_name=config.scheduler_name, weights=weights, percentage=share
        )
    except ValueError as error:
        raise InvalidConfiguration(f"{where}: {error}") from None


def merged(defaults: Mapping[str, int], said: PluginSet) -> dict[str, int]:
    """Defaults without what is disabled, with the weights that are said, and what comes on top."""
    found: dict[str, int] = {}
    if "*" not in said.disabled:
        for own, weight in defaults.items():
            if own in said.enabled:
                found[own] = said.enabled[own]
            elif own not in said.disabled:
                found[own] = weight
    return {**found, **{own: w for own, w in said.enabled.items() if own not in found}}


def default_profile(handle: Handle | None = None) -> Profile:
    """The profile without any configuration; enough for decisions without I/O."""
    from k8slite.scheduler.plugins.table import PLUGINS

    return build_profile(ProfileConfig(), 0, PLUGINS.get, handle or Handle(), "profiles[0]")
