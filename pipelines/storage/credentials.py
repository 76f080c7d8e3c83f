"""How obstore reaches object stores: addresses, credentials and regions."""

import datetime
import errno
import os
from typing import Any

from pipelines.storage.errors import require
from pipelines.storage.options import Settings, is_off

_EMULATOR = "STORAGE_EMULATOR_HOST"
_METADATA_TIMEOUT_S = "2"  # a metadata server answers within milliseconds
_CLIENT: Any = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "10m"}


def environment() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that obstore and these functions read, sorted."""
    names = sorted(name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "STORAGE_")))
    return tuple((name, os.environ[name]) for name in names)


def google_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of obstore's ``GCSStore``, apart from the bucket.

    Raises:
        OSError: There are no credentials.
    """
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
    """Provides access tokens through google-auth: from a key, a login or the machine."""

    def __init__(self, settings: Settings) -> None:
        # Outside Google Cloud there is no metadata server: give up after seconds, not a minute.
        os.environ.setdefault("GCE_METADATA_TIMEOUT", _METADATA_TIMEOUT_S)
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


def amazon_arguments(bucket: str, settings: Settings) -> dict[str, Any]:
    """Return the arguments of obstore's ``S3Store``, apart from the bucket.

    Raises:
        OSError: There are no credentials, or the file with certificates cannot be read.
    """
    client: dict[str, Any] = dict(_CLIENT)
    # Bulk delete sends names as XML, which cannot hold all of them, and some stores lack it.
    config: dict[str, Any] = {"disable_bulk_delete": True}
    verify = settings.s3_verify
    if verify and is_off(verify):
        client["allow_invalid_certificates"] = True
    elif verify and verify.lower() not in ("true", "1", "yes"):
        with open(verify, "rb") as file:
            client["root_certificate"] = file.read()
    given: dict[str, Any] = {"config": config, "client_options": client}
    region = settings.s3_region_name or _first_set("AWS_REGION", "AWS_DEFAULT_REGION")
    if settings.s3_access_key_id:
        config["access_key_id"] = settings.s3_access_key_id
        config["secret_access_key"] = settings.s3_secret_access_key or ""
        if settings.s3_session_token:
            config["session_token"] = settings.s3_session_token
    elif not _first_set("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"):  # obstore reads these
        given["credential_provider"], region = _amazon_chain(region)
    endpoint = settings.s3_endpoint_url or _first_set(
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


def _first_set(*names: str) -> str:
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
