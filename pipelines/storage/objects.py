"""Objects of Google Cloud Storage (``gs://``) and S3 (``s3://``), by obstore."""

import datetime
import errno
import math
import os
import re
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

from pipelines.storage import options, patterns
from pipelines.storage.errors import as_oserror, require
from pipelines.storage.paths import FileInfo, NoInputError, folder_error, is_temporary, last_part
from pipelines.storage.streams import SCATTERED_BYTES, SEQUENTIAL_BYTES, RangeFile, Upload

__all__ = ["Objects"]

_PART_BYTES = 16 << 20  # S3 takes 10,000 parts an object, of 5 MB at least
_PARTS_AT_A_TIME = 2
_EXTRAS = {"gs": "gcp", "s3": "aws"}
_EMULATOR = "STORAGE_EMULATOR_HOST"
_DATACENTER_S = "2"  # that a machine waits for a metadata server, which answers in milliseconds
#: Not more than two minutes in all: a busy store asks to come again, a missing one never answers.
_RETRIES: Any = {
    "max_retries": 8,
    "retry_timeout": datetime.timedelta(minutes=2),
}
_CLIENT: Any = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "10m"}

_lock = threading.Lock()
_stores: dict[Any, Any] = {}


class Objects:
    """Object stores: no folders, names that begin alike."""

    remote = True

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def stat(self, path: str) -> FileInfo:
        """Return what is known of an object."""
        store, key = self._store(path)
        import obstore

        try:
            return _info(path, obstore.head(store, key))
        except Exception as error:
            raise as_oserror(error, path) from error

    def exists(self, path: str) -> bool:
        """Say whether there is such an object."""
        return self.find(path) is not None

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open an object for reading: by 16 MB, or by 64 kB when parts of it are wanted."""
        store, key = self._store(path)
        import obstore

        def fetch(start: int, length: int) -> bytes:
            try:
                found = obstore.get(store, key, options={"range": (start, start + length)})
                if found.meta["e_tag"] != etag:
                    raise OSError(errno.ESTALE, "changed while it was read", path)
                return bytes(found.bytes())
            except Exception as error:
                raise as_oserror(error, path) from error

        first = b""
        try:
            if scattered:
                meta = obstore.head(store, key)
            else:
                try:
                    got = obstore.get(store, key, options={"range": (0, SEQUENTIAL_BYTES)})
                    meta, first = got.meta, bytes(got.bytes())
                except obstore.exceptions.GenericError:
                    meta = obstore.head(store, key)
                    if meta["size"]:  # an empty object has no first byte to ask for
                        raise
        except Exception as error:
            raise as_oserror(error, path) from error
        etag = meta["e_tag"]
        block = SCATTERED_BYTES if scattered else SEQUENTIAL_BYTES
        return cast(BinaryIO, RangeFile(fetch, meta["size"], block, first))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return the bytes from ``start``, at most ``length``."""
        store, key = self._store(path)
        import obstore

        try:
            found = obstore.get(store, key, options={"range": (start, start + length)})
            return bytes(found.bytes())
        except Exception as error:
            if self.stat(path).size <= start:
                return b""
            raise as_oserror(error, path) from error

    def listdir(self, folder: str) -> list[tuple[str, float]]:
        """Return names and times of change of the objects directly in a folder."""
        return [
            (last_part(path), _seconds(meta)) for path, meta in self._level(folder)[0]
        ]  # fmt: skip

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects directly in a folder."""
        return [name for name, _ in self.listdir(folder)]

    def remove(self, path: str) -> None:
        """Delete an object; a missing one is fine."""
        store, key = self._store(path)
        import obstore

        try:
            obstore.delete(store, key)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise as_oserror(error, path) from error

    def create_if_absent(self, path: str, content: bytes) -> bool:
        """Create an object unless it exists, by a condition that the store checks."""
        store, key = self._store(path)
        import obstore

        try:
            obstore.put(store, key, content, mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        except Exception as error:
            raise as_oserror(error, path) from error
        return True

    def open_output(self, path: str) -> Upload:
        """Begin an upload. A dropped one is aborted, so that its parts are not billed."""
        store, key = self._store(path)
        import obstore

        def send_whole(content: bytes) -> None:
            try:
                obstore.put(store, key, content, use_multipart=False)
            except Exception as error:
                raise as_oserror(error, path) from error

        def send_parts(parts: Iterable[bytes]) -> None:
            try:
                obstore.put(
                    store,
                    key,
                    parts,
                    use_multipart=True,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_A_TIME,
                )
            except Exception as error:
                raise as_oserror(error, path) from error

        return Upload(send_whole, send_parts, _PART_BYTES)

    # --- patterns

    def match(self, pattern: str) -> list[FileInfo]:
        """Find objects by name or pattern."""
        if not patterns.has_magic(pattern):
            found = self.find(pattern)
            if found is None and any(self._level(pattern)):
                raise folder_error(pattern)
            return [] if found is None else [found]
        root, slash, rest = pattern.partition("://")[2].partition("/")
        if patterns.has_magic(root) or not slash:
            raise NoInputError(f"{pattern!r}: a pattern must name its bucket (--input)")
        return list(patterns.expand(self, f"{self._scheme}://{root}/", rest))

    def find(self, path: str) -> FileInfo | None:
        """Return the object of that name, or None."""
        try:
            return self.stat(path)
        except FileNotFoundError:
            return None

    def files(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted objects directly in a folder."""
        return [
            _info(path, meta)
            for path, meta in self._level(folder)[0]
            if wanted.fullmatch(name := last_part(path)) and not is_temporary(name)
        ]

    def folders(self, folder: str, wanted: re.Pattern[str]) -> list[str]:
        """Return the wanted folders directly in a folder."""
        return [path for path in self._level(folder)[1] if wanted.fullmatch(last_part(path))]

    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted objects below a folder."""
        store, key = self._store(folder)
        import obstore

        found = []
        try:
            for page in obstore.list(store, key or None, chunk_size=1000):
                for meta in page:
                    path = f"{self._root(folder)}{meta['path']}"
                    inside = path.removeprefix(folder)
                    if wanted.fullmatch(inside) and not is_temporary(last_part(path)):
                        found.append(_info(path, meta))
        except Exception as error:
            raise as_oserror(error, folder) from error
        # obstore drops the slash at the end of an empty object that stands for a folder.
        empty = [file for file in found if not file.size]
        here = dict(zip(empty, patterns.in_parallel(self, [f.path for f in empty], self.find),
                        strict=True))  # fmt: skip
        return [file for file in found if file.size or here[file] is not None]

    def _level(self, folder: str) -> tuple[list[tuple[str, Any]], list[str]]:
        """Return objects and folders directly in a folder, by their paths."""
        store, key = self._store(folder)
        import obstore

        try:
            found = obstore.list_with_delimiter(store, key or None)
        except Exception as error:
            raise as_oserror(error, folder) from error
        root = self._root(folder)
        # An object that stands for the folder itself loses its slash, and is listed too.
        above = f"{root}{key}"
        return (
            [(root + m["path"], m) for m in found["objects"] if root + m["path"] != above],
            [root + prefix for prefix in found["common_prefixes"]],
        )

    # --- stores

    def _root(self, path: str) -> str:
        return f"{self._scheme}://{path.partition('://')[2].partition('/')[0]}/"

    def _store(self, path: str) -> tuple[Any, str]:
        """Return the bucket's store, and what a path names in it."""
        bucket, _, key = path.partition("://")[2].partition("/")
        chosen = (self._scheme, bucket, options.settings(), _surroundings())
        with _lock:
            if chosen not in _stores:
                try:
                    _stores[chosen] = self._make(bucket, options.settings())
                except OSError as error:
                    if error.filename is None and error.errno:
                        error.filename = path
                    raise
        return _stores[chosen], key.strip("/")

    def _make(self, bucket: str, settings: options.Settings) -> Any:
        try:
            import obstore
            from obstore import store
        except ModuleNotFoundError:
            raise require(_EXTRAS[self._scheme], self._scheme) from None
        try:
            if self._scheme == "gs":
                return store.GCSStore(bucket, retry_config=_RETRIES, **_google(settings))
            return store.S3Store(bucket, retry_config=_RETRIES, **_amazon(bucket, settings))
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise OSError(errno.EINVAL, str(error).splitlines()[0], bucket) from error


def _surroundings() -> tuple[tuple[str, str], ...]:
    """Return what the environment says about object stores."""
    names = sorted(name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "STORAGE_")))
    return tuple((name, os.environ[name]) for name in names)


def _google(settings: options.Settings) -> dict[str, Any]:
    emulator = os.environ.get(_EMULATOR)
    if emulator:
        address = emulator if "://" in emulator else f"http://{emulator}"
        return {
            "base_url": address.rstrip("/"),
            "credential_provider": lambda: {"token": "emulator", "expires_at": None},
            "client_options": {**_CLIENT, "allow_http": True},
        }
    if settings.no_auth:
        return {"skip_signature": True, "client_options": _CLIENT}
    return {"credential_provider": _GoogleTokens(settings), "client_options": _CLIENT}


class _GoogleTokens:
    """Tokens for Google's interfaces, by google-auth: from a key, a login or the machine."""

    def __init__(self, settings: options.Settings) -> None:
        # Without a metadata server nobody answers: that is known after seconds, not a minute.
        os.environ.setdefault("GCE_METADATA_TIMEOUT", _DATACENTER_S)
        os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
        try:
            import google.auth
            import google.auth.exceptions
            import google.auth.transport.requests
        except ModuleNotFoundError:
            raise require("gcp", "gs") from None
        scopes = ["https://www.googleapis.com/auth/devstorage.read_write"]
        self._request = google.auth.transport.requests.Request()
        try:
            self._credentials, _ = google.auth.default(scopes=scopes, request=self._request)
            if settings.impersonate_service_account:
                from google.auth import impersonated_credentials

                *delegates, target = settings.impersonate_service_account.split(",")
                self._credentials = impersonated_credentials.Credentials(
                    self._credentials, target, scopes, delegates=delegates
                )
            self()
        except google.auth.exceptions.GoogleAuthError as error:
            why = next(iter(str(error).splitlines()), "")
            raise OSError(
                errno.EACCES,
                "no credentials for Google Cloud: run gcloud auth application-default login, set "
                f"GOOGLE_APPLICATION_CREDENTIALS, or give --no_auth for public buckets ({why})",
            ) from None

    def __call__(self) -> dict[str, Any]:
        self._credentials.refresh(self._request)
        expiry = self._credentials.expiry
        if expiry is not None and expiry.tzinfo is None:
            expiry = expiry.replace(tzinfo=datetime.UTC)
        return {"token": self._credentials.token, "expires_at": expiry}


def _amazon(bucket: str, settings: options.Settings) -> dict[str, Any]:
    client: dict[str, Any] = dict(_CLIENT)
    # Names of single objects may hold anything, and not every store that speaks S3 has bulk delete.
    config: dict[str, Any] = {"disable_bulk_delete": True}
    verify = settings.s3_verify
    if verify and verify.lower() in ("false", "0", "no"):
        client["allow_invalid_certificates"] = True
    elif verify and verify.lower() not in ("true", "1", "yes"):
        with open(verify, "rb") as file:
            client["root_certificate"] = file.read()
    given: dict[str, Any] = {"config": config, "client_options": client}
    region = settings.s3_region_name or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
    if settings.s3_access_key_id:
        config["access_key_id"] = settings.s3_access_key_id
        config["secret_access_key"] = settings.s3_secret_access_key or ""
        if settings.s3_session_token:
            config["session_token"] = settings.s3_session_token
    elif not _environment("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"):  # obstore reads these
        given["credential_provider"], region = _amazon_chain(region)
    endpoint = settings.s3_endpoint_url or _environment(
        "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"
    )
    if not endpoint and not region:
        region = _region_of(bucket)
    if settings.s3_disable_ssl and not endpoint:
        endpoint = f"http://s3.{region or 'us-east-1'}.amazonaws.com"
    if endpoint:
        if "://" not in endpoint:
            endpoint = f"{'http' if settings.s3_disable_ssl else 'https'}://{endpoint}"
        config["endpoint"] = endpoint.rstrip("/")
        client["allow_http"] = endpoint.startswith("http://")
    config["region"] = region or "us-east-1"
    return given


def _environment(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _amazon_chain(region: str) -> tuple[Any, str]:
    """Return botocore's credentials (profile, web identity, container, machine) and region."""
    try:
        import botocore.exceptions
        import botocore.session
    except ModuleNotFoundError:
        raise require("aws", "s3") from None
    session = botocore.session.Session()
    try:
        credentials = session.get_credentials()
        region = region or session.get_config_variable("region") or ""
        if credentials is not None:
            credentials.get_frozen_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise OSError(errno.EACCES, f"no credentials for S3: {error}") from None
    if credentials is None:
        raise OSError(
            errno.EACCES,
            "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE,"
            " or AWS_SKIP_SIGNATURE=true for public buckets",
        )

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            # botocore renews them by itself, well before they expire.
            "expires_at": datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5),
        }

    return provide, region


def _region_of(bucket: str) -> str:
    """Ask S3, without credentials, where a bucket is; "" if that stays unknown."""
    import requests

    try:
        answer = requests.head(
            f"https://s3.amazonaws.com/{bucket}", timeout=10, allow_redirects=False
        )
    except requests.RequestException:
        return ""
    return answer.headers.get("x-amz-bucket-region", "")


def _info(path: str, meta: Any) -> FileInfo:
    etag = meta["e_tag"]
    return FileInfo(path, meta["size"], f"etag:{etag.strip(chr(34))}" if etag else "")


def _seconds(meta: Any) -> float:
    changed = meta["last_modified"]
    return changed.timestamp() if changed is not None else math.inf
