"""``c4 build`` on Dataflow: checks that fail at once where Beam would retry for minutes."""

import functools
import importlib
import re
from typing import Any

from pipelines.extras import missing
from pipelines.quiet_beam import beam

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_ANSWER_S = 10
# Bucket names as Beam reads them (apache_beam/options/pipeline_options_validator.py).
_BUCKET_FOLDER = re.compile(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9](/.*)?")


def check(options: Any) -> None:
    """Raise ValueError or OSError, in one line, for a job that could not be submitted."""
    cloud = options.view_as(beam.options.pipeline_options.GoogleCloudOptions)
    for name in ("temp_location", "staging_location"):
        value = getattr(cloud, name)
        # Beam ignores a malformed folder and tries for minutes to create a bucket instead.
        if value and not _BUCKET_FOLDER.fullmatch(value):
            raise ValueError(f"--{name} must be gs://BUCKET/FOLDER, got {value!r}")
    try:
        auth = importlib.import_module("google.auth")
        requests = importlib.import_module("google.auth.transport.requests")
        importlib.import_module("google.cloud.dataflow_v1beta3")
    except ModuleNotFoundError:
        raise ValueError(missing("DataflowRunner", "gcp")) from None
    if cloud.no_auth:
        return
    # Without credentials Beam continues anonymously and prints a traceback per retry.
    try:
        credentials, _ = auth.default(scopes=_SCOPES)
        credentials.refresh(functools.partial(requests.Request(), timeout=_ANSWER_S))
    except auth.exceptions.GoogleAuthError as error:
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            "no Google Cloud credentials for DataflowRunner: run gcloud auth application-default "
            f"login, or set GOOGLE_APPLICATION_CREDENTIALS ({reason})"
        ) from None
