"""The subcommands of ``c4`` that train: options in, exit status out."""
