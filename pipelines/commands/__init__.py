"""The subcommands of ``c4`` that need no training extra: options in, exit status out."""
