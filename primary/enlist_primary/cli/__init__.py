"""`enlist-primary`: one file per noun; the only place of the primary that prints or exits.

Heavy imports wait until they are needed: `--help` answers at once.
"""
