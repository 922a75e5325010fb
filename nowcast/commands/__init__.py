"""The commands, after their arguments are parsed: one module per command."""
