"""``python -m trimtab_cli``: the same as ``trimtab``."""

from trimtab_cli import main

main.main()
