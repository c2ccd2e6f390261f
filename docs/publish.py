#!/usr/bin/env python3
"""Puts a built site beside those of other versions.

Each version is a folder. ``index.html`` leads to the newest release, ``versions.html``
lists all. The release workflow does this on the branch that the pages are served from.

> python -m sphinx -W -A versions=1 docs site
> python docs/publish.py site pages 0.2.0

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import shutil
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>speechbrain_ser_cl</title>
{head}</head>
<body>
{body}</body>
</html>
"""


def publish(site, pages, version):
    """Copies a site into the folder of its version; writes the two pages about all.

    Arguments
    ---------
    site : pathlib.Path
        Folder that Sphinx wrote.
    pages : pathlib.Path
        Folder of all versions; created if needed.
    version : packaging.version.Version
        Version of the site; an earlier copy is replaced.

    Returns
    -------
    list of str
        All published versions, newest first.
    """
    target = pages / str(version)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(site, target, ignore=shutil.ignore_patterns(".buildinfo"))
    (pages / ".nojekyll").touch()  # else folders that begin with _ are not served
    found = []
    for path in pages.glob("*/index.html"):
        try:
            found.append(Version(path.parent.name))
        except InvalidVersion:  # another folder
            continue
    found.sort(reverse=True)
    # Visitors want a release first.
    newest = next((one for one in found if not one.is_prerelease), found[0])
    head = f'<meta http-equiv="refresh" content="0; url={newest}/index.html">\n'
    body = f'<p><a href="{newest}/index.html">{newest}</a></p>\n'
    (pages / "index.html").write_text(PAGE.format(head=head, body=body), "utf-8")
    items = "".join(f'<li><a href="{one}/index.html">{one}</a></li>\n' for one in found)
    body = f"<h1>speechbrain_ser_cl</h1>\n<ul>\n{items}</ul>\n"
    (pages / "versions.html").write_text(PAGE.format(head="", body=body), "utf-8")
    return [str(one) for one in found]


def main(arguments=None):
    """Reads the command line; prints all published versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="folder that Sphinx wrote")
    parser.add_argument("pages", type=Path, help="folder with a folder per version")
    parser.add_argument("version", help="such as 0.2.0")
    options = parser.parse_args(arguments)
    try:
        version = Version(options.version)
    except InvalidVersion as error:
        sys.exit(f"{error}; expected one such as 0.2.0")
    if not (options.site / "index.html").is_file():
        sys.exit(f"{options.site}: no index.html; build the site first")
    print(" ".join(publish(options.site, options.pages, version)))


if __name__ == "__main__":
    main()
