"""The version of this package: here and nowhere else; pyproject.toml reads it from this file.

It is not asked of the installed metadata: a checkout may have none, or that of another checkout.
"""

VERSION = "0.2.0"
