"""What the operating system refuses, said as a CacheError with a way out."""

from __future__ import annotations

import errno

from modelbuild.errors import CacheError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def storage_failure(error: OSError, path: str) -> CacheError:
    """The CacheError for `error`, met while the cache used `path`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return CacheError(
            f"no space is left for the cache: cannot write `{path}`",
            notes=(reason,),
            hint="free some space with `modelbuild cache gc --max-size 10G`, or move the cache with "
            "`--cache-dir`",
        )
    if error.errno in _REFUSED:
        return CacheError(
            f"the cache is read-only: cannot write `{path}`",
            notes=(reason,),
            hint="name a writable cache with `--cache-dir`",
        )
    return CacheError(f"the cache cannot use `{path}`", notes=(reason,))
