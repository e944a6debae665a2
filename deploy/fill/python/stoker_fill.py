"""Fills a site's cache in Redis so that no invalidation is ever undone by a late load.

This is stoker's wire contract for filling (fill.md, one folder up), for Python 3.9 or later with
redis-py 4.3 or later:

    import redis
    from stoker_fill import Filler

    filler = Filler(
        queue=redis.Redis.from_url("redis://queue:6379/0", socket_timeout=1),
        cache=redis.Redis.from_url("redis://cache:6379/0", socket_timeout=1),
        scripts="stoker-scripts",  # written by: stoker fill-scripts stoker-scripts
        app="blog",
    )

    def page(slug: str) -> bytes:
        got = filler.fetch(f"page:/posts/{slug}", lambda: render(slug), tags=[f"post:{slug}"], ttl=3600)
        return got.value

A Filler may be shared by threads. Make one after a fork, not before, as with any Redis client. When a
Redis cannot be reached the page is still served, without its cache; only what load raises is raised.
"""

from __future__ import annotations

import hashlib
import pathlib
import random
import secrets
import time
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Tuple, Union

from redis import RedisError

Text = Union[str, bytes]  # a str stands for its UTF-8

LEASE_WAIT = 0.3  # seconds to wait for another's load before loading by oneself
POINTER_AGE = 2.0  # seconds to trust what is known of the active release
FILL_JITTER = 500  # milliseconds, by which each put's probation is its own
MAX_NAME = 64 << 10  # bytes of a key or tag
MAX_NOTED = 64 << 10  # bytes of a value whose tags are noted beside it


class Fetched(NamedTuple):
    """What fetch found."""

    value: bytes
    hit: bool  # it came from the cache
    stored: bool  # it was loaded and is now in the cache
    release: Optional[str]  # whose namespace was read; None when that could not be told


class Filler:
    """Reads entries through the cache of one app. Its settings must be those of stoker's workers.

    queue and cache are redis-py clients without decode_responses, and with a socket_timeout: it bounds
    how long a request waits for a Redis that hangs. They are the same client when one Redis is both.
    scripts is the directory that `stoker fill-scripts` has written. fill_limit and origin_lag are in
    seconds. release pins the filler to one release, as a new build's own servers are; without it, the
    active release is followed.
    """

    def __init__(
        self,
        queue: Any,
        cache: Any,
        scripts: Union[str, pathlib.Path],
        app: str = "site",
        key_template: str = "<app>:<release>:<key>",
        fill_limit: float = 30.0,
        origin_lag: float = 0.0,
        release: Optional[str] = None,
    ) -> None:
        for client in (queue, cache):
            if client.get_encoder().decode_responses:
                raise ValueError("a Redis client has decode_responses set: values are bytes; make one without it")
        self._queue = queue
        self._cache = cache
        self._own = f"stoker:{{{app}}}:"  # begins stoker's own keys in the queue Redis
        before, rest = key_template.replace("<app>", app).split("<release>")
        self._template = (before, *rest.split("<key>"))
        self._limit_ms = round(fill_limit * 1000)
        self._lag_us = round(origin_lag * 1_000_000)
        self._pinned = release or None
        self._active: Tuple[Optional[str], float] = (None, 0.0)  # the release, and when it was read

        def script(client: Any, name: str) -> Any:
            return client.register_script((pathlib.Path(scripts) / name).read_bytes())

        self._mark = script(queue, "mark.lua")
        self._check = script(queue, "check.lua")
        self._lease = script(cache, "lease.lua")
        self._settle = script(cache, "settle.lua")
        self._give_back = script(cache, "release.lua")

    def fetch(
        self, key: Text, load: Callable[[], bytes], tags: Iterable[Text] = (), ttl: Optional[float] = None
    ) -> Fetched:
        """Returns the entry from the cache, or from load, whose value is then stored.

        The entry is listed under tags and expires after ttl seconds: at least 1, or None or 0 for
        never. One caller at a time loads a missing entry; the others wait briefly, then load without
        storing. A value that an invalidation overtook is returned but not kept. Raises ValueError for
        a key, tag or ttl that cannot be, TypeError when load returns no bytes, and whatever load raises.
        """
        logical, labels = _name("key", key), [_name("tag", t) for t in tags]
        ttl = ttl or 0
        if ttl < 0 or 0 < ttl < 1:
            raise ValueError(f"ttl {ttl} of key {key!r}: use at least 1 second, or None for no expiry")
        release = None
        try:
            release = self._release()
            fill = _Fill(self, release, logical, labels, ttl) if release else None
            if fill:
                value = self._cache.get(fill.entry)
                if value is None and not fill.begin():
                    value = fill.await_other()
                    if value is None and not fill.begin():  # the other may have ended without storing
                        fill = None
                if value is not None:
                    return Fetched(value, True, False, release)
        except RedisError:
            fill = None
        if not fill:
            return Fetched(_bytes(load()), False, False, release)
        try:
            value = _bytes(load())
            return Fetched(value, False, fill.store(value), release)
        finally:
            fill.end()

    def _release(self) -> Optional[str]:
        """The release to read and fill; None when none is active."""
        if self._pinned:
            return self._pinned
        active, read_at = self._active
        if active and time.monotonic() - read_at < POINTER_AGE:
            return active
        try:
            reply = self._queue.get(self._own + "active")
        except RedisError:
            if active:
                return active  # the queue Redis is away: go on with what was true last
            raise
        if reply is None:
            return None
        self._active = (reply.decode(), time.monotonic())
        return self._active[0]

    def _key(self, release: str, logical: bytes) -> bytes:
        """The key of the cache Redis for a logical key."""
        before, between, after = self._template
        return (before + release + between).encode() + logical + after.encode()


class _Fill:
    """One fill of one entry: lease, mark, (load,) put, check, settle. See fill.md for the reasons."""

    def __init__(self, filler: Filler, release: str, logical: bytes, tags: List[bytes], ttl: float) -> None:
        self.filler = filler
        self.release = release
        self.logical = logical
        self.tags = tags
        self.ttl_ms = round(ttl * 1000)
        self.entry = filler._key(release, logical)
        self.lease = filler._key(release, b"#lease:" + logical)
        self.token = secrets.token_hex(16)

    def begin(self) -> bool:
        """Takes the lease, then the mark; False when another holds the lease."""
        f = self.filler
        self.began = time.monotonic()
        won, self.server_ms = f._lease(keys=[self.lease], args=[self.token, f._limit_ms])
        if not won:
            return False
        try:
            self.mark, self.epoch = f._mark(
                keys=[f._own + "log:meta", f._own + "pending"], args=[secrets.token_hex(16), f._lag_us]
            )
        except RedisError:
            self.end()
            raise
        return True

    def await_other(self) -> Optional[bytes]:
        """Waits for the value that the lease's holder stores; None when there will be none in time."""
        cache = self.filler._cache
        deadline, pause = time.monotonic() + LEASE_WAIT, 0.002
        while time.monotonic() < deadline:
            time.sleep(pause)
            # The lease first: when it is gone and the entry is missing, nobody is about to store it.
            held = cache.exists(self.lease)
            value: Optional[bytes] = cache.get(self.entry)
            if value is not None or not held:
                return value
            pause = min(2 * pause, 0.02)
        return None

    def store(self, value: bytes) -> bool:
        """Puts the value on probation, checks it, and settles or drops it; True when it stays."""
        try:
            return self._store(value)
        except RedisError:
            return False  # what was put vanishes when its probation ends

    def _store(self, value: bytes) -> bool:
        f = self.filler
        passed_ms = round((time.monotonic() - self.began) * 1000)
        if passed_ms >= f._limit_ms - FILL_JITTER:
            return False
        probation = self.server_ms + f._limit_ms - random.randrange(FILL_JITTER)
        final = self.server_ms + passed_ms + self.ttl_ms if self.ttl_ms else 0
        put = f._cache.pipeline(transaction=False)
        for tag in self.tags:  # first the index, then the entry
            index = f._key(self.release, b"#tag:" + tag)
            put.execute_command("ZADD", index, final or "+inf", self.logical)
        put.execute_command("SET", self.entry, value, "PXAT", probation)
        put.execute()
        (stale,) = f._check(
            keys=[f._own + name for name in ("log:meta", "log", "log:prefixes", "live")],
            args=[self.mark, self.epoch, self.release, self.logical, len(self.tags), *self.tags],
        )
        keys: List[bytes] = [self.entry]
        args: List[Any] = [probation, -1 if stale else final]
        if self.tags and final and not stale and len(value) <= MAX_NOTED:
            keys.append(f._key(self.release, b"#of:" + self.logical))
            args.append(_companion(value, self.tags))
        return bool(f._settle(keys=keys, args=args)) and not stale

    def end(self) -> None:
        """Gives the lease back; where that fails, it ends by itself at the fill limit."""
        try:
            self.filler._give_back(keys=[self.lease], args=[self.token])
        except RedisError:
            pass


def _companion(value: bytes, tags: List[bytes]) -> bytes:
    """What is kept beside an entry: which value it is for, and that value's tags."""
    return hashlib.sha1(value).hexdigest()[:16].encode() + b"\n" + b"".join(tag + b"\n" for tag in tags)


def _bytes(value: Any) -> bytes:
    """The value, or TypeError: a str would come back from the cache as bytes."""
    if not isinstance(value, bytes):
        raise TypeError(f"load returned {type(value).__name__}: return bytes, such as text.encode()")
    return value


def _name(kind: str, given: Text) -> bytes:
    """The bytes of a key or a tag, or ValueError for what cannot be one."""
    name = given.encode() if isinstance(given, str) else bytes(given)
    if not name:
        raise ValueError(f"empty {kind}")
    if len(name) > MAX_NAME:
        raise ValueError(f"{kind} of {len(name)} bytes: at most {MAX_NAME}")
    if kind == "key" and name.startswith(b"#"):
        raise ValueError(f"key {given!r}: logical keys that begin with # are reserved")
    return name
