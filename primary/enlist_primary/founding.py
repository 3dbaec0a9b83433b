"""`init`: a data folder, an authority, a database with its first owner. All of it, or nothing that looks like it."""

from __future__ import annotations

import secrets
from functools import partial

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary import config as configuration
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.model import api_keys, users
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.users import Role, User
from enlist_primary.operations import accounts

OWNER = "owner"


async def found(folder: DataFolder, config: Config, now: int) -> Signer:
    """Makes a primary in the folder; refused with FOLDER_IN_USE if anything is in it.

    The configuration is written last: without it the folder is not a primary's, so a crash half-way leaves none.
    """
    from enlist_primary.store.sqlite import open_sqlite  # loads sqlite-utils, which only whoever opens the database needs

    configuration.check(config, folder.config)
    _prepare(folder)
    with folder.lock():
        signer = keys.create(folder, now)
        owner, token = _owner(now)
        async with open_sqlite(folder.database, create=True) as database:
            new_id = partial(names.new_id, secrets.token_bytes)
            fingerprint = signer.authority.fingerprint
            await database.write(PRIMARY, accounts.found_primary, owner, config.name, fingerprint, new_id, now)
        files.write(folder.owner_token, token.encode() + b"\n")
        files.write(folder.config, configuration.render(config).encode())
    return signer


def _prepare(folder: DataFolder) -> None:
    """An empty folder of ours; what a founding that crashed left behind is cleared away."""
    if folder.config.exists():
        raise Refused(Reason.FOLDER_IN_USE, f"{folder.path} holds a primary already. Name another folder with --data.")
    leftovers = {folder.authority_key, folder.authority_certificate, folder.database, folder.owner_token, folder.lock_file}
    leftovers |= {folder.path / f"{folder.database.name}{suffix}" for suffix in ("-wal", "-shm", "-journal")}
    leftovers |= {path.with_name(f".{path.name}.new") for path in (*leftovers, folder.config)}
    for foreign in files.entries(folder.path):
        if foreign not in leftovers:
            raise Refused(
                Reason.FOLDER_IN_USE, f"{folder.path} is not empty (it holds {foreign.name}). Name an empty or a new folder."
            )
    files.make_folder(folder.path)
    with folder.lock():
        for path in leftovers - {folder.lock_file}:
            files.remove(path)


def _owner(now: int) -> tuple[User, str]:
    user_id = names.new_id(secrets.token_bytes)
    token = users.make_token(user_id, secrets.token_bytes)
    parsed = users.parse_token(token)
    assert parsed is not None, "make_token and parse_token agree"
    return User(user_id, OWNER, Role.ADMINISTRATOR, PRIMARY, api_keys.hash_of(parsed.secret), now), token
