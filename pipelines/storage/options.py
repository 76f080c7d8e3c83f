"""Beam's options for remote file systems, in the launcher and on its workers."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """Beam's options for file systems, under their names. None or "" means the default."""

    no_auth: str | None = None  # public buckets of Google
    impersonate_service_account: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None
    s3_session_token: str | None = None
    s3_endpoint_url: str | None = None
    s3_region_name: str | None = None
    s3_verify: str | None = None  # "false", or the path of a certificate file
    s3_disable_ssl: str | None = None
    hdfs_host: str | None = None
    hdfs_port: str | None = None
    hdfs_user: str | None = None
    hdfs_full_urls: str | None = None


_SWITCHES = ("no_auth", "s3_disable_ssl", "hdfs_full_urls")
_given = Settings()


def use_options(options: Sequence[str] | Mapping[str, Any]) -> None:
    """Set how this process reaches remote file systems.

    Args:
        options: Beam's options as words of a command line, or as names and values. Other options
            are ignored.

    Workers need not call this function: Beam passes them the options of the pipeline.
    """
    global _given
    if not isinstance(options, Mapping):
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in Settings._fields:
            if name in _SWITCHES:
                parser.add_argument(f"--{name}", nargs="?", const="true")
            else:
                parser.add_argument(f"--{name}", nargs="?")
        options = vars(parser.parse_known_args(list(options))[0])
    _given = Settings(*(_text(name, options.get(name)) for name in Settings._fields))


def settings() -> Settings:
    """Return the options of `use_options`, and for unset ones those of Beam's worker."""
    # Only a worker has such values, and it has imported this module.
    provider = sys.modules.get("apache_beam.options.value_provider")
    if provider is None:
        return _given
    of_worker = provider.RuntimeValueProvider.get_value
    return Settings(
        *(
            value or _text(name, of_worker(name, str, None))
            for name, value in zip(Settings._fields, _given, strict=True)
        )
    )


def is_off(text: str) -> bool:
    """Return whether the value of an option switches it off.

    >>> is_off("False"), is_off("/etc/ssl/ca.pem")
    (True, False)
    """
    return text.lower() in ("false", "0", "no")


def _text(name: str, value: Any) -> str | None:
    text = "" if value is None else str(value)
    return None if name in _SWITCHES and is_off(text) else text or None
